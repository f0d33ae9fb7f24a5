"""What a study found, as values: the winner, groups compared, methods, trends, the Pareto front, the history.

Every score here is on dev. Numbers on the test split come from promotions alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.backbones.facts import read_architecture
from clinie_core.errors import InputError
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.significance import Comparison, bootstrap_interval, compare
from search.analysis.comparisons import (
    CorrectedBest,
    GroupComparison,
    Trend,
    compare_groups,
    compute_trend,
    correct_best_score,
)
from search.ledger.records import TrialRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COSTS",
    "CorpusRow",
    "Findings",
    "GroupRow",
    "ScoredTrial",
    "analyze",
    "compare_groups_of_studies",
    "compare_trials",
    "compare_with_single",
    "cost",
    "pareto_front",
]

FULL = "full"
COSTS = ("seconds_per_document", "peak_memory_mb", "trainable_parameters")


@dataclass(frozen=True)
class ScoredTrial:
    """A trial that did an epoch, with the counts of its best epoch where they were kept."""

    record: TrialRecord
    metric: str
    counts: DocumentCounts | None

    @property
    def score(self) -> float:
        """Its best epoch's value of the study's first objective."""
        return self.record.metrics[self.metric]

    def get_metric(self, name: str) -> float:
        """Another metric of its best epoch; not a number where it has none."""
        return self.record.metrics.get(name, math.nan)

    @property
    def method(self) -> str:
        """Its fine-tuning method."""
        assert self.record.config is not None
        return self.record.config.finetuning.name

    @property
    def architecture(self) -> str:
        """Encoder or decoder."""
        assert self.record.config is not None
        try:
            return read_architecture(self.record.config.backbone)
        except InputError:  # the backbone was somewhere that this machine does not see
            return "unknown"

    @property
    def compute_seconds(self) -> float:
        """What its epochs took, in seconds."""
        return sum(metrics.get("seconds", 0.0) for metrics in self.record.epochs.values())


@dataclass(frozen=True)
class GroupRow:
    """A group of trials in one row: its best trial, what that costs, and how far it keeps up with another.

    Args:
        name: The group.
        trials: How many trials.
        best: Its best trial.
        interval: 95 % interval of that trial's score, by bootstrap over documents; None without counts.
        kept: Share of the reference group's best score that it reaches.
        is_reference: Whether it is the group that the others are compared with.
        against: Its comparison with the reference group; None for that group itself, or without counts.
    """

    name: str
    trials: int
    best: ScoredTrial
    interval: tuple[float, float] | None
    kept: float | None
    is_reference: bool
    against: GroupComparison | None


@dataclass(frozen=True)
class CorpusRow:
    """One of the corpora that a model serves together, and the best model of that corpus alone, if there is a study.

    Args:
        corpus: Its name.
        together: Strict F1 on its dev documents of the winner that serves all.
        study: A study of that corpus alone.
        alone: The score of that study's winner.
        comparison: The two on the same documents; None if they were not scored on the same ones.
    """

    corpus: str
    together: float
    study: str | None = None
    alone: float | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Findings:
    """All that a report says of a study.

    Args:
        study: Its name.
        metric: Its first objective.
        maximized: Whether more of it is better.
        trials: Those that did an epoch, by number.
        states: How many trials ended how.
        winner: The best finished trial.
        interval: The winner's score, 95 % interval by bootstrap over documents.
        corrected: What the best is expected to score on other documents.
        margin: The winner against the runner-up on the same documents.
        runner_up: The second-best finished trial.
        architectures: Encoders and decoders, where there are both.
        methods: Fine-tuning methods, ``full`` as the reference where it was tried.
        trends: By path of a numeric dimension, whether the score follows it.
        front: Trials that no other beats in score, speed, memory and parameters at once.
        history: After each trial: its number, hours of compute so far, best score so far.
        importances: Share of the score's variation by dimension.
    """

    study: str
    metric: str
    maximized: bool
    trials: list[ScoredTrial]
    states: Mapping[str, int]
    winner: ScoredTrial | None
    interval: tuple[float, float] | None
    corrected: CorrectedBest | None
    runner_up: ScoredTrial | None
    margin: Comparison | None
    architectures: list[GroupRow]
    methods: list[GroupRow]
    trends: dict[str, Trend]
    front: list[ScoredTrial]
    history: list[tuple[int, float, float]]
    importances: dict[str, float] = field(default_factory=dict)


def analyze(
    study: str,
    records: Sequence[TrialRecord],
    metric: str,
    *,
    maximized: bool,
    counts: Mapping[int, DocumentCounts],
    importances: Mapping[str, float],
) -> Findings:
    """Work out what a study found.

    Args:
        study: Its name.
        records: Its trials.
        metric: Its first objective.
        maximized: Whether more of it is better.
        counts: Of each trial's best epoch, by number, where they were kept.
        importances: Of its dimensions, from the ledger.
    """
    scored = [
        ScoredTrial(record, metric, _of_metric(counts.get(record.number), metric))
        for record in records
        if record.config is not None and math.isfinite(record.metrics.get(metric, math.nan))
    ]
    sign = 1 if maximized else -1
    ranked = sorted(
        (t for t in scored if t.record.state == "complete"), key=lambda t: (-sign * t.score, t.record.number)
    )
    winner, runner_up = (ranked[0] if ranked else None), (ranked[1] if len(ranked) > 1 else None)
    comparable = _comparable(scored, winner)
    states: defaultdict[str, int] = defaultdict(int)
    for record in records:
        states[record.state] += 1
    return Findings(
        study=study,
        metric=metric,
        maximized=maximized,
        trials=scored,
        states=dict(states),
        winner=winner,
        interval=_interval(winner),
        corrected=correct_best_score(_stacked(comparable)) if comparable and len(_stacked(comparable)[0]) > 1 else None,
        runner_up=runner_up,
        margin=compare_trials(winner, runner_up) if winner is not None and runner_up is not None else None,
        architectures=_groups(scored, lambda t: t.architecture, sign, reference=None),
        methods=_groups(scored, lambda t: t.method, sign, reference=FULL),
        trends=_trends(scored),
        front=pareto_front(scored),
        history=_history(scored, sign),
        importances=dict(importances),
    )


def _of_metric(counts: DocumentCounts | None, metric: str) -> DocumentCounts | None:
    """Counts that add up to the metric that trials are judged by; a study may be judged by something else."""
    return counts if counts is not None and counts.metric == metric and metric.endswith("_f1") else None


def _comparable(trials: Sequence[ScoredTrial], winner: ScoredTrial | None) -> list[ScoredTrial]:
    """The trials whose counts are of the same documents as the winner's."""
    if winner is None or winner.counts is None:
        return []
    return [t for t in trials if t.counts is not None and t.counts.documents_digest == winner.counts.documents_digest]


def _stacked(trials: Sequence[ScoredTrial]) -> NDArray[np.float64]:
    """Counts of trials on the same documents, ``[trials, documents, 3]``."""
    return np.stack([t.counts.counts for t in trials if t.counts is not None])


def _interval(trial: ScoredTrial | None) -> tuple[float, float] | None:
    if trial is None or trial.counts is None or not len(trial.counts.counts):
        return None
    return bootstrap_interval(trial.counts.counts)


def compare_trials(first: ScoredTrial, second: ScoredTrial) -> Comparison | None:
    """Compare two trials document by document; None if their counts are not of the same documents."""
    if first.counts is None or second.counts is None or first.counts.documents_digest != second.counts.documents_digest:
        return None
    return compare(first.counts.counts, second.counts.counts)


def compare_with_single(together: ScoredTrial, corpus: str, single: ScoredTrial) -> Comparison | None:
    """Compare a model of several corpora with one of a single corpus, on that corpus's documents.

    Ids differ between the two, so that documents are matched by their order; each must have as many gold annotations.
    """
    if together.counts is None or single.counts is None:
        return None
    first, second = together.counts.for_corpus(corpus), single.counts.counts
    if not len(first) or first.shape != second.shape:
        return None
    if not np.array_equal(first[:, 0] + first[:, 2], second[:, 0] + second[:, 2]):
        return None
    return compare(first, second)


def _groups(
    trials: Sequence[ScoredTrial],
    key: Callable[[ScoredTrial], str],
    sign: int,
    *,
    reference: str | None,
) -> list[GroupRow]:
    """Rows by group, best first; none where there is nothing to compare."""
    groups: defaultdict[str, list[ScoredTrial]] = defaultdict(list)
    for trial in trials:
        groups[key(trial)].append(trial)
    if len(groups) < 2:
        return []
    best = {name: max(own, key=lambda t: sign * t.score) for name, own in groups.items()}
    order = sorted(groups, key=lambda name: -sign * best[name].score)
    stands = reference if reference is not None and reference in groups else order[0]
    rows = []
    for name in order:
        kept = best[name].score / best[stands].score if best[stands].score else None
        against = compare_groups_of_studies(groups[name], groups[stands]) if name != stands else None
        rows.append(GroupRow(name, len(groups[name]), best[name], _interval(best[name]), kept, name == stands, against))
    return rows


def compare_groups_of_studies(first: Sequence[ScoredTrial], second: Sequence[ScoredTrial]) -> GroupComparison | None:
    """Compare two groups of trials, as far as their trials' counts are of the same documents."""
    anchor = next((t for t in second if t.counts is not None), None)
    own, others = _comparable(first, anchor), _comparable(second, anchor)
    if not own or not others or not len(_stacked(own)[0]):
        return None
    return compare_groups(_stacked(own), _stacked(others))


def _trends(trials: Sequence[ScoredTrial]) -> dict[str, Trend]:
    """Whether the score follows each numeric dimension, among the trials that have it."""
    values: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for trial in trials:
        for path, value in trial.record.parameters.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values[path].append((float(value), trial.score))
    found = {path: compute_trend([x for x, _ in pairs], [y for _, y in pairs]) for path, pairs in values.items()}
    return {path: result for path, result in sorted(found.items()) if result is not None}


def cost(trial: ScoredTrial, name: str) -> float:
    """What a trial's model costs: MiB at its peak, parameters trained, or seconds to predict a document."""
    if name == "seconds_per_document":
        speed = trial.get_metric("documents_per_second")
        return 1 / speed if speed else math.nan
    return trial.get_metric(name)


def pareto_front(trials: Sequence[ScoredTrial]) -> list[ScoredTrial]:
    """Trials that no other beats in score and in every cost at once, best score first; those with all costs known."""
    rows = [(t, np.array([-t.score, *(cost(t, name) for name in COSTS)])) for t in trials]
    known = [(t, v) for t, v in rows if np.isfinite(v).all()]
    front = [t for t, v in known if not any(bool((other <= v).all() and (other < v).any()) for _, other in known)]
    return sorted(front, key=lambda t: -t.score)


def _history(trials: Sequence[ScoredTrial], sign: int) -> list[tuple[int, float, float]]:
    ended = sorted((t for t in trials if t.record.ended is not None), key=lambda t: (t.record.ended, t.record.number))
    history, hours, best = [], 0.0, -math.inf
    for trial in ended:
        hours += trial.compute_seconds / 3600
        best = max(best, sign * trial.score)
        history.append((trial.record.number, hours, sign * best))
    return history
