"""The best trial of a study with the uncertainty of its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.analysis.comparisons import CorrectedBest
from search.analysis.scored_trials import ScoredTrial, rank_trials, score_winner
from search.config.objectives import Limit
from search.ledger.ranking import RankedTrial
from search.ledger.ranking import rank_trials as rank_records
from search.ledger.records import TrialRecord
from search.report.settings import separate_settings
from search.storage.home import Home
from search.tracking.document_counts import fetch_document_counts

__all__ = ["BestTrial", "read_best_trial"]


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a study.

    Args:
        study: Name of the study.
        trial: The trial.
        interval: 95 % interval of its score on dev; None without counts by document.
        corrected: Its score, corrected for the selection; None without counts by document.
        complete: Number of complete trials.
        ranking: The trial with the scores of all its seeds.
    """

    study: str
    trial: ScoredTrial
    interval: tuple[float, float] | None
    corrected: CorrectedBest | None
    complete: int
    ranking: RankedTrial

    def describe(self) -> list[tuple[str, str]]:
        """Return names and values of what a user needs to know about the trial."""
        record, trial = self.trial.record, self.trial
        score = f"{trial.score:.4f} on dev (optimistic: the best of {self.complete})"
        lines = [("trial", str(record.number)), (trial.metric, score)]
        if self.ranking.spread is not None:
            lines.append(("mean", f"{self.ranking}; ± is the standard deviation"))
        if self.interval is not None:
            lines.append(("95 % interval", f"{self.interval[0]:.4f} to {self.interval[1]:.4f}"))
        if self.corrected is not None:
            fair = self.corrected
            span = f"{fair.low:.4f} to {fair.high:.4f}"
            lines.append(("expected", f"{fair.corrected:.4f} ({span}) on documents that did not select it"))
        settings = separate_settings([record.config]).common
        lines += [("epoch", f"{record.best_epoch} of {len(record.epochs)}"), *settings.items()]
        lines.append(("checkpoint", record.checkpoint or "deleted"))
        return [*lines, ("repeat", f"clinie repeat {self.study} {record.number}")]

    def as_json(self) -> dict[str, Any]:
        """Return the trial as a JSON value."""
        low, high = self.interval or (None, None)
        corrected = self.corrected.corrected if self.corrected is not None else None
        content = {"study": self.study, **self.trial.record.as_json(), **self.ranking.as_json()}
        return {**content, "interval": [low, high], "corrected": corrected}


def read_best_trial(
    home: Home,
    study: str,
    records: Sequence[TrialRecord],
    metric: str,
    *,
    maximized: bool,
    limits: Sequence[Limit] = (),
) -> BestTrial | None:
    """Find the best trial and compute the uncertainty of its score, without the rest of a report.

    Args:
        home: The home folder.
        study: Name of the study.
        records: Trials of the study.
        metric: Name of the metric of the first objective.
        maximized: Whether a higher value of the metric is better.
        limits: Limits that a trial has to satisfy.

    Returns:
        None if no complete trial satisfies the limits.
    """
    complete = [record for record in records if record.state == "complete"]
    counts = fetch_document_counts(home, study, complete)
    ranked = rank_trials(complete, metric, counts, maximized=maximized, limits=limits)
    if not ranked:
        return None
    ranking = rank_records(complete, metric, maximized=maximized, limits=limits)[0]
    return BestTrial(study, ranked[0], *score_winner(ranked), len(ranked), ranking)
