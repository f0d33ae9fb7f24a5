"""Results of a trial and their representation as Ray Tune results.

Ray Tune passes results between processes as flat dictionaries. All keys of these dictionaries are defined here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["EPOCH", "EpochResult", "FailureKind", "TrialFailure"]

EPOCH = "epoch"
"""Time attribute of the schedulers. Tune's own `training_iteration` restarts with a trial's driver."""
METRIC_NAMES = "metric_names"
FINISHED = "finished"
RESOURCE_CLASS = "resource_class"
FAILURE = "failure"
REASON = "reason"

FailureKind = Literal["failed", "infeasible", "disk_full", "withdrawn"]


@dataclass(frozen=True)
class EpochResult:
    """Results of one epoch of a trial.

    Args:
        epoch: 1-based number of the epoch.
        metrics: Metrics by name, in the order in which they are displayed.
        finished: Whether this is the trial's last epoch, by its budget or by its patience.
        resource_class: Name of the resource class that trained the epoch; empty if it is unknown.
    """

    epoch: int
    metrics: Mapping[str, float]
    finished: bool = False
    resource_class: str = ""

    def to_tune_result(self) -> dict[str, Any]:
        """Return the result as a flat dictionary that Ray Tune accepts."""
        names = ",".join(self.metrics)
        own = {METRIC_NAMES: names, EPOCH: self.epoch, FINISHED: self.finished, RESOURCE_CLASS: self.resource_class}
        return {**self.metrics, **own}

    @classmethod
    def from_tune_result(cls, result: Mapping[str, Any]) -> EpochResult | None:
        """Read the results of an epoch from a Tune result, without the entries that Tune adds.

        Args:
            result: A result as Tune passes it to callbacks and schedulers.

        Returns:
            None for a result without an epoch: the trial failed before its first epoch.
        """
        if EPOCH not in result:
            return None
        names = filter(None, str(result[METRIC_NAMES]).split(","))
        metrics = {name: float(result[name]) for name in names}
        return cls(int(result[EPOCH]), metrics, bool(result.get(FINISHED)), str(result.get(RESOURCE_CLASS, "")))


@dataclass(frozen=True)
class TrialFailure:
    """Failure that ended a trial.

    Args:
        kind: ``failed`` after an error, ``infeasible`` if the trial does not fit into memory, ``disk_full`` if
            a disk is full. A full disk is not the trial's fault: it ends the search, and the trial can be resumed.
            ``withdrawn`` if a command stops or pauses the trial.
        reason: One line without document text.
    """

    kind: FailureKind
    reason: str

    def to_tune_result(self) -> dict[str, Any]:
        """Return the entries that a failure adds to the trial's last Tune result."""
        return {FAILURE: self.kind, REASON: self.reason}

    @classmethod
    def from_tune_result(cls, result: Mapping[str, Any]) -> TrialFailure | None:
        """Read a failure from a Tune result; None if the trial has not failed."""
        kind = result.get(FAILURE)
        if kind is None:
            return None
        if kind not in get_args(FailureKind):
            raise ValueError(f"unknown kind of failure {kind!r}; allowed: {', '.join(get_args(FailureKind))}")
        return cls(kind, str(result[REASON]))
