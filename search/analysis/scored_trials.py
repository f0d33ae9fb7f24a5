"""Trials with their scores and counts by document, ranked by score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.backbones.facts import read_architecture
from clinie_core.config import rate_epoch
from clinie_core.errors import InputError
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.significance import bootstrap_interval
from search.analysis.comparisons import CorrectedBest, correct_best_score
from search.config.objectives import Limit
from search.ledger.ranking import rank_trials as rank_records
from search.ledger.records import TrialRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ScoredTrial",
    "compute_interval",
    "rank_trials",
    "score_trials",
    "score_winner",
    "select_comparable",
    "stack_counts",
]


@dataclass(frozen=True)
class ScoredTrial:
    """A trial with at least one finished epoch.

    Args:
        record: The trial.
        metric: Name of the metric of the study's first objective.
        counts: Counts by document of the best epoch; None if they were not stored.
    """

    record: TrialRecord
    metric: str
    counts: DocumentCounts | None

    @property
    def score(self) -> float:
        """Value of the first objective in the best epoch."""
        return self.record.metrics[self.metric]

    def get_metric(self, name: str) -> float:
        """Return a metric of the best epoch; NaN if the epoch has no such metric."""
        return self.record.metrics.get(name, math.nan)

    @property
    def is_complete(self) -> bool:
        """True if the trial used its budget or its patience."""
        return self.record.state == "complete"

    def score_after(self, epochs: int) -> float:
        """Return the value of the first objective in the best of the first epochs; NaN without a finite one."""
        assert self.record.config is not None
        selection = self.record.config.selection
        first = [metrics for epoch, metrics in sorted(self.record.epochs.items()) if epoch <= epochs]
        best = max(first, key=lambda metrics: rate_epoch(metrics, selection), default={})
        return best.get(self.metric, math.nan)

    @property
    def method(self) -> str:
        """Name of the fine-tuning method."""
        assert self.record.config is not None
        return self.record.config.finetuning.name

    @property
    def architecture(self) -> str:
        """Architecture of the backbone: ``encoder``, ``decoder`` or ``unknown``."""
        assert self.record.config is not None
        try:
            return read_architecture(self.record.config.backbone)
        except InputError:  # the files of the backbone are not on this machine
            return "unknown"

    @property
    def compute_seconds(self) -> float:
        """Compute time of all epochs, in seconds."""
        return sum(metrics.get("seconds", 0.0) for metrics in self.record.epochs.values())


def score_trials(
    records: Iterable[TrialRecord], metric: str, counts: Mapping[int, DocumentCounts]
) -> list[ScoredTrial]:
    """Return the trials whose best epoch has a finite value of the metric."""
    return [
        ScoredTrial(record, metric, _select_counts(counts.get(record.number), metric))
        for record in records
        if record.config is not None and math.isfinite(record.metrics.get(metric, math.nan))
    ]


def rank_trials(
    records: Iterable[TrialRecord],
    metric: str,
    counts: Mapping[int, DocumentCounts],
    *,
    maximized: bool,
    limits: Sequence[Limit] = (),
) -> list[ScoredTrial]:
    """Return the complete trials within the limits, best one first; see :mod:`search.ledger.ranking`.

    Args:
        records: Trials of a study.
        metric: Name of the metric of the first objective.
        counts: Counts by document of each trial's best epoch, by trial number.
        maximized: Whether a higher value of the metric is better.
        limits: Limits that a trial has to satisfy.
    """
    ranked = rank_records(records, metric, maximized=maximized, limits=limits)
    return score_trials((ranking.record for ranking in ranked), metric, counts)


def score_winner(ranked: Sequence[ScoredTrial]) -> tuple[tuple[float, float] | None, CorrectedBest | None]:
    """Compute the uncertainty of the best trial's score.

    Args:
        ranked: Complete trials, best one first.

    Returns:
        The 95 % interval by bootstrap over documents, and the score corrected for the selection; None for each of
        them without counts by document.
    """
    winner = ranked[0] if ranked else None
    comparable = select_comparable(ranked, winner)
    stacked = stack_counts(comparable) if comparable else None
    enough = stacked is not None and stacked.shape[1] > 1
    return compute_interval(winner), correct_best_score(stacked) if stacked is not None and enough else None


def _select_counts(counts: DocumentCounts | None, metric: str) -> DocumentCounts | None:
    """Return the counts if the metric is an F1 that they sum up to; else None."""
    return counts if counts is not None and counts.metric == metric and metric.endswith("_f1") else None


def select_comparable(trials: Sequence[ScoredTrial], winner: ScoredTrial | None) -> list[ScoredTrial]:
    """Return the trials with counts of the same documents as the winner."""
    if winner is None or winner.counts is None:
        return []
    return [t for t in trials if t.counts is not None and t.counts.documents_digest == winner.counts.documents_digest]


def stack_counts(trials: Sequence[ScoredTrial]) -> NDArray[np.float64]:
    """Stack the counts of trials on the same documents to ``[trials, documents, 3]``."""
    return np.stack([t.counts.counts for t in trials if t.counts is not None])


def compute_interval(trial: ScoredTrial | None) -> tuple[float, float] | None:
    """Return the 95 % interval of a trial's score by bootstrap over documents; None without counts."""
    if trial is None or trial.counts is None or not len(trial.counts.counts):
        return None
    return bootstrap_interval(trial.counts.counts)
