"""The outcome of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.ledger.records import TrialRecord

__all__ = ["StudyFailed", "StudyOutcome"]


class StudyFailed(RuntimeError):
    """A search cannot produce results: all its trials failed, or the workers cannot start."""


@dataclass(frozen=True)
class StudyOutcome:
    """The outcome of a search.

    Args:
        study: Name of the study.
        trials: All trials of the study.
        best: The best complete trial.
        interrupted: Numbers of the trials that a resume continues.
        stopped_by_user: Whether a signal ended the search before its budget was spent.
        waiting: Number of events that are queued because the MLflow server is unavailable.
        ended_because: Why the search ended before it ran all trials of its budget; None for another reason.
    """

    study: str
    trials: list[TrialRecord]
    best: TrialRecord | None
    interrupted: list[int]
    stopped_by_user: bool = False
    waiting: int = 0
    ended_because: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as a JSON value."""
        return {
            "study": self.study,
            "trials": [record.as_json() for record in self.trials],
            "best": self.best.as_json() if self.best else None,
            "interrupted": self.interrupted,
            "ended_because": self.ended_because,
        }
