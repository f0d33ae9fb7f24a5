"""Schedulers: Ray Tune schedulers that decide which trials stop early.

No scheduler may pause a trial: a paused trial would hold no worker, and is never resumed.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from search.config.algorithms import SCHEDULERS
from search.config.objectives import Objective
from search.config.space_file import Algorithm
from search.ledger.records import TrialRecord
from search.trials.result import EPOCH, EpochResult
from search.trials.spec import TrialSpec

__all__ = ["make_asha", "make_fifo", "make_median", "make_scheduler", "replay_trials"]


def _mode(objective: Objective) -> str:
    return "max" if objective.direction == "maximize" else "min"


def make_asha(algorithm: Algorithm, objective: Objective, epochs: int) -> TrialScheduler:
    """Make ASHA, asynchronous successive halving.

    Source: Li et al. 2020, arXiv 1810.05934.
    """
    return _Asha(
        time_attr=EPOCH,
        metric=objective.metric,
        mode=_mode(objective),
        max_t=max(epochs, algorithm.grace_epochs + 1),
        grace_period=algorithm.grace_epochs,
        reduction_factor=algorithm.reduction_factor,
        stop_last_trials=False,
    )


def make_median(algorithm: Algorithm, objective: Objective, epochs: int) -> TrialScheduler:
    """Make the median stopping rule.

    Source: Golovin et al. 2017, KDD.
    """
    return _Median(
        time_attr=EPOCH,
        metric=objective.metric,
        mode=_mode(objective),
        grace_period=algorithm.grace_epochs,
        min_samples_required=algorithm.startup_trials,
    )


def make_fifo(algorithm: Algorithm, objective: Objective, epochs: int) -> TrialScheduler:
    """Make a scheduler that stops no trial early."""
    return _LiveTrialScheduler()


def make_scheduler(algorithm: Algorithm, objective: Objective, epochs: int) -> TrialScheduler:
    """Make the scheduler that an algorithm block names.

    Args:
        algorithm: Name of the scheduler, with its grace period and reduction factor.
        objective: The first objective of the study; trials are compared by it.
        epochs: Maximum number of epochs of one trial.

    Raises:
        InputError: If there is no scheduler of that name.
    """
    make: Callable[[Algorithm, Objective, int], TrialScheduler] = SCHEDULERS.load(
        algorithm.scheduler, "algorithm.scheduler"
    )
    return make(algorithm, objective, epochs)


@dataclass(frozen=True)
class _EndedTrial:
    """Stand-in for the Tune trial of a trial that ended in an earlier run of the search."""

    trial_id: str


def replay_trials(scheduler: TrialScheduler, records: Iterable[TrialRecord]) -> None:
    """Pass the trials of earlier runs to a scheduler, so that it decides as in an uninterrupted search.

    Args:
        scheduler: A new scheduler.
        records: The trials that ended.
    """
    for record in records:
        trial = _EndedTrial(f"past-{record.number}")
        scheduler.on_trial_add(None, trial)
        results = [EpochResult(epoch, metrics).to_tune_result() for epoch, metrics in sorted(record.epochs.items())]
        # Tune passes the last epoch of a complete trial to on_trial_complete only.
        for result in results[:-1] if record.state == "complete" else results:
            scheduler.on_trial_result(None, trial, result)
        if results:
            scheduler.on_trial_complete(None, trial, results[-1])


class _LiveTrialScheduler(FIFOScheduler):
    """FIFO scheduler that only looks through live trials; Ray's own looks through all trials at every step."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the pending trial with the lowest number."""
        pending = (trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING)
        return min(pending, key=lambda trial: TrialSpec.from_tune_config(trial.config).number, default=None)


class _Asha(_LiveTrialScheduler, AsyncHyperBandScheduler):
    """Asynchronous successive halving."""


class _Median(_LiveTrialScheduler, MedianStoppingRule):
    """Median stopping rule that accepts a trial without an epoch and never pauses a trial."""

    def on_trial_complete(self, tune_controller: object, trial: object, result: dict[str, Any]) -> None:
        """Add the last epoch of a trial; a trial that failed before its first epoch has none."""
        if EPOCH in result:
            super().on_trial_complete(tune_controller, trial, result)

    def _on_insufficient_samples(self, tune_controller: object, trial: object, time: float) -> str:
        """Continue a trial while too few others have ended; Ray's own pauses it if another trial is pending."""
        return str(TrialScheduler.CONTINUE)
