"""Schedulers: Ray Tune schedulers that decide which trials stop early.

No scheduler may pause a trial: a paused trial would hold no worker, and is never resumed.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.execution.tune_controller import TrialRunnerWrapper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config.algorithms import SCHEDULERS
from search.config.stopping import StoppingSettings, is_too_early
from search.ledger.records import ENDED, TrialRecord
from search.trials.result import EpochResult
from search.trials.spec import TrialSpec
from search.tune.ended_trials import release_ended_trials
from search.tune.rungs import Rungs

__all__ = ["forget_trial", "make_asha", "make_fifo", "make_median", "make_scheduler", "replay_trials"]


WITHOUT_SCORE = 2
"""Number of epochs after which a trial ends if an objective was a finite number in none of them."""


def make_asha(settings: StoppingSettings) -> TrialScheduler:
    """Make ASHA, asynchronous successive halving."""
    return _Asha(settings)


def make_median(settings: StoppingSettings) -> TrialScheduler:
    """Make the median stopping rule, which compares trials by the first objective.

    Source: Golovin et al. 2017, KDD.
    """
    return _Median(settings)


def make_fifo(settings: StoppingSettings) -> TrialScheduler:
    """Make a scheduler that stops no trial early, except one without a finite score."""
    return _LiveTrialScheduler(settings)


def make_scheduler(settings: StoppingSettings) -> TrialScheduler:
    """Make the scheduler that an algorithm block names.

    Raises:
        InputError: If there is no scheduler of that name.
    """
    make: Callable[[StoppingSettings], TrialScheduler] = SCHEDULERS.load(
        settings.algorithm.scheduler, "algorithm.scheduler"
    )
    return make(settings)


@dataclass(frozen=True)
class _LedgerTrial:
    """Stand-in for the Tune trial of a trial of an earlier run of the search, or of another driver."""

    trial_id: str
    config: Mapping[str, Any] | None = None


def replay_trials(scheduler: TrialScheduler, records: Iterable[TrialRecord]) -> None:
    """Pass trials of earlier runs or of other drivers to a scheduler, so that it decides as in one search of all.

    A trial may be passed again after further epochs; those that the scheduler has do not count twice.

    Args:
        scheduler: The scheduler.
        records: The trials; those that have not ended are trained by other drivers.
    """
    for record in records:
        if record.repeats is not None:
            continue  # a scheduler does not compare runs of finalists
        trial = _make_trial(record.number)
        scheduler.on_trial_add(None, trial)
        results = [EpochResult(epoch, metrics).to_tune_result() for epoch, metrics in sorted(record.epochs.items())]
        # Tune passes the last epoch of a complete trial to on_trial_complete only.
        for result in results[:-1] if record.state == "complete" else results:
            scheduler.on_trial_result(None, trial, result)
        if results and record.state in ENDED:
            scheduler.on_trial_complete(None, trial, results[-1])


def forget_trial(scheduler: TrialScheduler, number: int) -> None:
    """Remove the results of a trial that :func:`replay_trials` has passed, because Tune will have the trial."""
    scheduler.on_trial_remove(None, _make_trial(number))


def _make_trial(number: int) -> _LedgerTrial:
    return _LedgerTrial(f"ledger-{number}")


class _LiveTrialScheduler(FIFOScheduler):
    """FIFO scheduler that only looks through live trials; Ray's own looks through all trials at every step.

    It stops a trial whose objectives are not finite numbers in its first epochs: the training has failed.

    Args:
        settings: Objectives of the study, among others.
    """

    def __init__(self, settings: StoppingSettings) -> None:
        super().__init__()
        self._objectives = [objective.metric for objective in settings.objectives]
        self._without_score: Counter[str] = Counter()
        self._with_score: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Release the trials that have ended before Tune adds another one."""
        if isinstance(tune_controller, TrialRunnerWrapper):  # otherwise a trial of an earlier run is replayed
            release_ended_trials(tune_controller._tune_controller)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the pending trial with the lowest number."""
        pending = (trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING)
        return min(pending, key=lambda trial: TrialSpec.from_tune_config(trial.config).number, default=None)

    def on_trial_result(self, tune_controller: object, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial without a finite score; else decide as the subclass does."""
        epoch = EpochResult.from_tune_result(result)
        if epoch is None:
            return str(TrialScheduler.CONTINUE)
        if all(math.isfinite(epoch.metrics.get(name, math.nan)) for name in self._objectives):
            self._with_score.add(trial.trial_id)
        elif trial.trial_id not in self._with_score:
            self._without_score[trial.trial_id] += 1
        is_compared = not _is_repeat(trial) and self._should_stop(trial, epoch)
        stops = is_compared or self._without_score[trial.trial_id] >= WITHOUT_SCORE
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def _should_stop(self, trial: Any, epoch: EpochResult) -> bool:
        return False

    def on_trial_remove(self, tune_controller: object, trial: Any) -> None:
        """Remove the results of a trial."""
        self._without_score.pop(trial.trial_id, None)
        self._with_score.discard(trial.trial_id)
        self._forget(trial.trial_id)

    def _forget(self, trial_id: str) -> None:
        """Remove the results that the subclass holds."""

    def on_trial_complete(self, tune_controller: object, trial: Any, result: dict[str, Any]) -> None:
        """Add the last epoch of a trial; a trial that failed before its first epoch has none."""
        epoch = EpochResult.from_tune_result(result)
        if epoch is not None and not _is_repeat(trial):
            self._should_stop(trial, epoch)


def _is_repeat(trial: Any) -> bool:
    """Return whether a trial is the run of a finalist, which uses its whole budget."""
    return trial.config is not None and TrialSpec.from_tune_config(trial.config).is_repeat


class _Asha(_LiveTrialScheduler):
    """Asynchronous successive halving, with rungs in epochs or in seconds of training."""

    def __init__(self, settings: StoppingSettings) -> None:
        super().__init__(settings)
        algorithm = settings.algorithm
        first = settings.grace_epochs if algorithm.grace_seconds is None else algorithm.grace_seconds
        last = max(settings.epochs, settings.grace_epochs + 1) if algorithm.grace_seconds is None else None
        self._rungs = Rungs(first, algorithm.reduction_factor, last, settings.objectives, settings.limits)
        self._in_seconds = algorithm.grace_seconds is not None
        self._seconds: defaultdict[str, dict[int, float]] = defaultdict(dict)

    def _should_stop(self, trial: Any, epoch: EpochResult) -> bool:
        if not self._in_seconds:
            return self._rungs.report(trial.trial_id, epoch.epoch, epoch.metrics)
        seconds = self._seconds[trial.trial_id]  # by epoch, because the last one is passed twice
        seconds[epoch.epoch] = epoch.metrics.get("seconds", 0.0)
        return self._rungs.report(trial.trial_id, sum(seconds.values()), epoch.metrics)

    def _forget(self, trial_id: str) -> None:
        self._seconds.pop(trial_id, None)
        self._rungs.remove(trial_id)


class _Median(_LiveTrialScheduler):
    """Median stopping rule: a trial stops if its best value is worse than the median of the others' running means."""

    def __init__(self, settings: StoppingSettings) -> None:
        super().__init__(settings)
        self._objective = objective = settings.objectives[0]
        self._metric, self._sign = objective.metric, 1.0 if objective.direction == "maximize" else -1.0
        self._grace_epochs = settings.grace_epochs
        self._needed = settings.algorithm.startup_trials
        self._values: defaultdict[str, dict[int, float]] = defaultdict(dict)

    def _should_stop(self, trial: Any, epoch: EpochResult) -> bool:
        own = self._values[trial.trial_id]
        own[epoch.epoch] = self._sign * epoch.metrics.get(self._metric, math.nan)
        if epoch.epoch < self._grace_epochs or is_too_early(self._objective, epoch.metrics):
            return False
        others = [values for name, values in self._values.items() if name != trial.trial_id]
        means = [
            statistics.fmean(value for at, value in values.items() if self._grace_epochs <= at <= epoch.epoch)
            for values in others
            if max(values) >= epoch.epoch
        ]
        means = [mean for mean in means if math.isfinite(mean)]
        best = max((value for value in own.values() if math.isfinite(value)), default=-math.inf)
        return len(means) >= self._needed and best < statistics.median(means)

    def _forget(self, trial_id: str) -> None:
        self._values.pop(trial_id, None)
