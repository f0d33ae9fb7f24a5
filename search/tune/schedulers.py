"""Schedulers: which trials stop early. One table; each row makes a Ray Tune scheduler."""

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
from search.trials.result import EPOCH

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
    return _LooksAtLiveTrials()


def make_scheduler(algorithm: Algorithm, objective: Objective, epochs: int) -> TrialScheduler:
    """Make the scheduler that an algorithm block names.

    Args:
        algorithm: Names the row, with grace period and reduction factor.
        objective: What weak means; of several objectives the first.
        epochs: The budget of one trial.

    Raises:
        InputError: If the table has no such row.
    """
    make: Callable[[Algorithm, Objective, int], TrialScheduler] = SCHEDULERS.load(
        algorithm.scheduler, "algorithm.scheduler"
    )
    return make(algorithm, objective, epochs)


@dataclass(frozen=True)
class _Past:
    """What a scheduler sees of a trial that ended in an earlier run of the search."""

    trial_id: str


def replay_trials(scheduler: TrialScheduler, records: Iterable[TrialRecord]) -> None:
    """Show a scheduler the trials that ended before, so that it judges new ones as if it had never been away.

    Args:
        scheduler: A fresh one.
        records: The trials that ended.
    """
    for record in records:
        past = _Past(f"past-{record.number}")
        scheduler.on_trial_add(None, past)
        curve = [{EPOCH: epoch, **metrics} for epoch, metrics in sorted(record.epochs.items())]
        for result in curve[:-1] if record.state == "complete" else curve:  # Tune tells a last epoch once
            scheduler.on_trial_result(None, past, result)
        if curve:
            scheduler.on_trial_complete(None, past, curve[-1])


class _LooksAtLiveTrials(FIFOScheduler):
    """Looks for a trial to start among those that have not ended; Ray's own looks through all, at every step."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first trial that waits, by its number; none of clinie's is ever paused."""
        waiting = (trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING)
        return min(waiting, key=lambda trial: int(trial.config["number"]), default=None)


class _Asha(_LooksAtLiveTrials, AsyncHyperBandScheduler):
    """Successive halving."""


class _Median(_LooksAtLiveTrials, MedianStoppingRule):
    """The median rule, which otherwise looks for the metric of a trial that failed before its first epoch."""

    def on_trial_complete(self, tune_controller: object, trial: object, result: dict[str, Any]) -> None:
        """Count a trial's last epoch."""
        if EPOCH in result:
            super().on_trial_complete(tune_controller, trial, result)
