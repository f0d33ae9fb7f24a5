"""Derive the default portfolio from the recorded tables, and write ``search/config/portfolio.yaml``.

A Gaussian process over all tables of a space predicts the relative score of each pair of a fine-tuning method and a
formulation with the values of the priors. Its kernel has a part that all corpora share, so that a few trials on each
corpus suffice. Pairs are selected greedily: each one adds the most to the mean, over the corpora, of the best
selected pair. Each method is selected once.

The table that is printed is leave-one-corpus-out: nothing of the held-out corpus is in the selection.

    python benchmarks/search/derive_portfolio.py [--check]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from recorded_tables import RecordedTrial, read_table
from replay_tables import GivenChooser, load_replay_space
from subsets import SUBSETS
from surrogate import Array, FeatureEncoder

import search.config.portfolio
from clinie_core.config import TrialConfig
from search.config.domains import Range
from search.config.search_space import SearchSpace
from search.ledger.proposals import propose

PORTFOLIO = Path(search.config.portfolio.__file__).with_suffix(".yaml")
SIZES = {"concepts": 3, "relations": 2}
"""Number of entries for each space."""
NOT_RECORDED = (
    {"finetuning": "lora", "formulation": "generation"},
    {"finetuning": "qlora", "formulation": "generation"},
)
"""Entries for decoders, which have no table with enough trials."""
SCALES = (0.25, 2.0, 1.0)
"""Length scales of the kernel: learning rate, choices, other numbers."""
NOISE, SHARED = 0.1, 0.7
"""Share of the variance that is noise, and share of the covariance that corpora have in common."""
DRAWS = 12
HEADER = """\
# Configurations that a study without history tries first, in this order, as far as its space has them: one for each
# family of fine-tuning methods. Values that an entry leaves out take their prior (priors.yaml).
#
# Written by benchmarks/search/derive_portfolio.py from the recorded tables; entries with `generation` are not derived.
"""
Entry = Mapping[str, str]


@dataclass(frozen=True)
class RecordedScores:
    """Relative scores of the recorded configurations of one space.

    Args:
        space: The space.
        features: Features of each configuration, by group.
        corpora: Name of the corpus of each configuration.
        scores: Best score of each configuration divided by the best score on its corpus.
    """

    space: SearchSpace
    features: Sequence[Array]
    corpora: tuple[str, ...]
    scores: Array

    @classmethod
    def load(cls, name: str) -> RecordedScores:
        """Load all tables of a space; trials that differ only by their seed are averaged."""
        space = load_replay_space(name=name)
        encoder = _make_encoder(space)
        rows: list[tuple[list[float], list[float], list[float]]] = []
        corpora: list[str] = []
        scores: list[float] = []
        for table in sorted(table for table, subset in SUBSETS.items() if subset.space == name):
            groups: dict[int, list[RecordedTrial]] = {}
            for trial in read_table(table):
                if trial.error is None and trial.epochs:
                    groups.setdefault(trial.number, []).append(trial)
            means = {n: float(np.mean([_find_best(trial) for trial in trials])) for n, trials in groups.items()}
            for number, trials in sorted(groups.items()):
                rows.append(encoder.encode(space.suggest(GivenChooser(trials[0].parameters)).flatten()))
                corpora.append(table)
                scores.append(means[number] / max(means.values()))
        return cls(space, _stack(rows), tuple(corpora), np.array(scores))

    def predict(self, entry: Entry, corpora: Sequence[str], *, without: str | None = None) -> Array:
        """Return the predicted relative score of an entry on corpora.

        Args:
            entry: Values of dimensions; the others take their prior, or are drawn and averaged.
            corpora: Names of the corpora.
            without: A corpus whose trials are left out.
        """
        used = np.array([corpus != without for corpus in self.corpora])
        known, names = [group[used] for group in self.features], np.array(self.corpora)[used]
        mean = self.scores[used].mean()
        kernel = _compute_kernel(known, known) * _relate(names, names) + NOISE * np.eye(len(names))
        weights = np.linalg.solve(kernel, self.scores[used] - mean)
        encoder = _make_encoder(self.space)
        drawn = _stack([encoder.encode(config.flatten()) for config in _draw(self.space, entry)])
        similar = _compute_kernel(drawn, known)
        return np.array([float(np.mean(similar * _relate(np.array([c]), names) @ weights)) + mean for c in corpora])


def _find_best(trial: RecordedTrial) -> float:
    return max(epoch["strict_f1"] for epoch in trial.epochs)


def _make_encoder(space: SearchSpace) -> FeatureEncoder:
    domains = dict(space.dimensions())
    return FeatureEncoder(
        {path: domain for path, domain in domains.items() if isinstance(domain, Range)},
        {path: domain.corners for path, domain in domains.items() if not isinstance(domain, Range)},
    )


def _stack(rows: Sequence[tuple[list[float], list[float], list[float]]]) -> list[Array]:
    return [np.array([row[group] for row in rows]).reshape(len(rows), -1) for group in range(3)]


def _compute_kernel(left: Sequence[Array], right: Sequence[Array]) -> Array:
    distance = np.zeros((len(left[0]), len(right[0])))
    for a, b, scale in zip(left, right, SCALES, strict=True):
        distance += ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2) / scale**2
    return np.asarray(np.exp(-0.5 * distance))


def _relate(left: np.ndarray, right: np.ndarray) -> Array:
    """Return the factor of the covariance between corpora."""
    return np.asarray(np.where(left[:, None] == right[None, :], 1.0, SHARED))


def _draw(space: SearchSpace, entry: Entry) -> list[TrialConfig]:
    proposals = (propose(space, seed, [], {**entry, "backbone": "minilm-l6"}) for seed in range(DRAWS))
    return [space.suggest(GivenChooser(proposal.parameters)) for proposal in proposals]


def list_candidates(space: SearchSpace) -> list[Entry]:
    """Return each pair of a fine-tuning method and a formulation."""
    domains = dict(space.dimensions())
    pairs = itertools.product(domains["finetuning"].corners, domains["formulation"].corners)
    return [{"finetuning": str(method), "formulation": str(formulation)} for method, formulation in pairs]


def select(recorded: RecordedScores, size: int, *, without: str | None = None) -> list[Entry]:
    """Select entries greedily.

    Args:
        recorded: The recorded trials.
        size: Number of entries.
        without: A corpus whose trials are not used.
    """
    corpora = sorted(set(recorded.corpora) - {without})
    candidates = list_candidates(recorded.space)
    scores = [recorded.predict(entry, corpora, without=without) for entry in candidates]
    chosen: list[int] = []
    best = np.zeros(len(corpora))
    for _ in range(size):
        used = {candidates[index]["finetuning"] for index in chosen}
        free = [index for index, entry in enumerate(candidates) if entry["finetuning"] not in used]
        # Equal gains are decided by the mean score, so that the order does not depend on rounding.
        chosen.append(max(free, key=lambda i: (round(np.maximum(best, scores[i]).mean(), 4), scores[i].mean())))
        best = np.maximum(best, scores[chosen[-1]])
    return [candidates[index] for index in chosen]


def render() -> str:
    """Return the content of ``portfolio.yaml``."""
    entries = [entry for name, size in SIZES.items() for entry in select(RecordedScores.load(name), size)]
    rows = [yaml.safe_dump(dict(entry), default_flow_style=True, width=200).strip() for entry in entries]
    rows += [yaml.safe_dump(entry, default_flow_style=True).strip() for entry in NOT_RECORDED]
    return HEADER + "".join(f"- {row}\n" for row in rows)


def print_held_out() -> None:
    """Print, for each corpus, the relative score of a portfolio that was selected without it."""
    recorded, size = RecordedScores.load("concepts"), SIZES["concepts"]
    everything = [recorded.predict(entry, sorted(set(recorded.corpora))) for entry in list_candidates(recorded.space)]
    print(f"{'held-out corpus':<18}{'trials':>8}{'portfolio':>11}{'mean pair':>11}{'best pair':>11}  selected")
    for index, corpus in enumerate(sorted(set(recorded.corpora))):
        chosen = select(recorded, size, without=corpus)
        found = max(float(recorded.predict(entry, [corpus])[0]) for entry in chosen)
        pairs = [scores[index] for scores in everything]
        names = ", ".join("/".join(entry.values()) for entry in chosen)
        count = recorded.corpora.count(corpus)
        print(f"{corpus:<18}{count:>8}{found:>11.3f}{np.mean(pairs):>11.3f}{max(pairs):>11.3f}  {names}")


def main() -> None:
    """Write the portfolio, or check that the file is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file differs")
    options = parser.parse_args()
    content = render()
    print_held_out()
    print(content)
    if not options.check:
        PORTFOLIO.write_text(content, encoding="utf-8")
    elif PORTFOLIO.read_text(encoding="utf-8") != content:
        raise SystemExit(f"{PORTFOLIO.name} differs; run: python benchmarks/search/derive_portfolio.py")


if __name__ == "__main__":
    main()
