"""Ranking of the complete trials of a study, by the mean over the seeds or folds of a configuration.

The best of many trials has a score that is too high, because the selection prefers luck. The finalists of a study
therefore run again with other seeds, or on the other folds of the corpus. They precede all other trials, in order of
their means.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clinie_core.config import Fold
from search.config.objectives import Limit, describe_violations
from search.config.space_file import Finalists
from search.ledger.records import TrialRecord

__all__ = ["MissingRun", "RankedTrial", "list_missing_runs", "rank_trials"]


@dataclass(frozen=True)
class RankedTrial:
    """A complete trial with the scores of its configuration.

    Args:
        record: The trial.
        scores: Its score, then those of the complete trials that repeat it with other seeds or on other folds.
        has_folds: Whether the scores are of different folds.
    """

    record: TrialRecord
    scores: tuple[float, ...]
    has_folds: bool = False

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the scores; None for one score."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def unit(self) -> str:
        """``folds`` or ``seeds``: the differences between the runs."""
        return "folds" if self.has_folds else "seeds"

    def as_json(self) -> dict[str, Any]:
        """Return the scores of all seeds or folds, their mean and their standard deviation."""
        key = "fold_scores" if self.has_folds else "seed_scores"
        return {key: list(self.scores), "mean": self.mean, "standard_deviation": self.spread}

    def __str__(self) -> str:
        if self.spread is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.spread:.4f} ({len(self.scores)} {self.unit})"


@dataclass(frozen=True)
class MissingRun:
    """A further run of a finalist.

    Args:
        number: Number of the finalist.
        seed: Seed of the run.
        fold: Its fold; None for that of the finalist.
    """

    number: int
    seed: int
    fold: Fold | None = None


def rank_trials(
    records: Iterable[TrialRecord], metric: str, *, maximized: bool, limits: Sequence[Limit] = ()
) -> list[RankedTrial]:
    """Rank the complete trials within the limits, the best first.

    Trials with more seeds or folds precede others; among equals the older one is first.

    Args:
        records: All trials of a study.
        metric: Name of the metric.
        maximized: Whether a higher value is better.
        limits: Limits that a trial has to satisfy.
    """
    scored = [r for r in records if r.state == "complete" and math.isfinite(r.metrics.get(metric, math.nan))]
    repeats: defaultdict[int, list[float]] = defaultdict(list)
    divided = {r.repeats for r in scored if r.config is not None and r.config.fold is not None}
    for record in scored:
        if record.repeats is not None:
            repeats[record.repeats].append(record.metrics[metric])
    ranked = [
        RankedTrial(record, (record.metrics[metric], *repeats[record.number]), record.number in divided)
        for record in scored
        if record.repeats is None and not describe_violations(limits, record.metrics)
    ]
    sign = 1 if maximized else -1
    return sorted(ranked, key=lambda trial: (-len(trial.scores), -sign * trial.mean, trial.record.number))


def list_missing_runs(
    records: Sequence[TrialRecord],
    metric: str,
    finalists: Finalists,
    *,
    maximized: bool,
    limits: Sequence[Limit] = (),
) -> list[MissingRun]:
    """List the runs with other seeds or on other folds that the finalists lack, first one of each finalist.

    Args:
        records: All trials of the study; a run that has failed is not repeated.
        metric: Name of the metric.
        finalists: Number of finalists and of their runs.
        maximized: Whether a higher value is better.
        limits: Limits that a finalist has to satisfy.
    """
    originals = [record for record in records if record.repeats is None and record.same_as is None]
    best = rank_trials(originals, metric, maximized=maximized, limits=limits)[: finalists.trials]
    known = [record.repeats for record in records]
    return [
        MissingRun(trial.record.number, *finalists.choose_run(trial.record.config.seed, run))
        for run in range(1, finalists.seeds)
        for trial in best
        if trial.record.config is not None and known.count(trial.record.number) < run
    ]
