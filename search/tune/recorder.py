"""The recorder: writes the results that Ray Tune receives to the ledger and notifies listeners.

Ray's OptunaSearch records a stopped trial as complete, with the value of its first rung. Here every epoch is
recorded, and a stopped trial is pruned. The recorder is a callback since Tune does not pass the last result of a
stopped trial, or the reason of a failure, to a searcher.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ray.tune import Callback
from ray.tune.experiment import Trial

from clinie_core.config import TrialConfig
from clinie_core.errors import DiskFull
from search.ledger.ledger import Ledger
from search.ledger.records import STOPPED, TrialRecord
from search.trials.job import DEFAULT_CLASS
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult, TrialFailure
from search.trials.retry import MAX_ACTOR_LOSSES
from search.trials.spec import TrialSpec
from search.tune.running_trials import RunningTrials, stop_after_error

__all__ = ["StudyRecorder", "Withdrawal"]

Withdrawal = Literal["stop", "pause", "again"]
"""What follows for a trial whose job was withdrawn; ``again`` if another command has resumed it meanwhile."""


class StudyRecorder(Callback):
    """Callback that records trials and notifies listeners, in the order of :mod:`search.trials.listener`.

    Args:
        ledger: The study.
        running: The running trials; receives those that end or lose their Tune actor.
        listeners: Notified of each event, in this order.
        failure_reason: Returns the reason why a trial failed, without document text; None if the trial lost its
            Tune actor.
        choose_withdrawal: Returns what a command requests for a trial whose job was withdrawn.
    """

    def __init__(
        self,
        ledger: Ledger,
        running: RunningTrials,
        listeners: list[TrialListener],
        failure_reason: Callable[[Trial], str | None],
        choose_withdrawal: Callable[[int], Withdrawal] = lambda number: "again",
    ) -> None:
        self._ledger = ledger
        self.running = running
        self._listeners = listeners
        self._failure_reason = failure_reason
        self.choose_withdrawal = choose_withdrawal
        self._started: set[int] = set()

    @stop_after_error
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Notify listeners of a trial that starts."""
        self._start(trial)

    def _start(self, trial: Trial) -> int:
        number = TrialSpec.from_tune_config(trial.config).number
        self._notify_start(number)
        return number

    def _notify_start(self, number: int) -> None:
        if number not in self._started:
            self._started.add(number)
            for listener in self._listeners:
                listener.on_trial_start(number, self.running.config(number))

    @stop_after_error
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, whatever the scheduler decides on it."""
        number = self._start(trial)
        epoch = EpochResult.from_tune_result(result)
        if epoch is not None and epoch.resource_class not in ("", DEFAULT_CLASS):
            self._ledger.set_resource_class(number, epoch.resource_class)
        if epoch is None or not self._ledger.report(number, epoch.epoch, epoch.metrics):
            return  # the trial failed before its first epoch, or is resumed and repeats an epoch
        for listener in self._listeners:
            listener.on_epoch_end(number, epoch)

    @stop_after_error
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the end of a trial: complete, pruned if the scheduler stopped it, or its failure.

        Raises:
            DiskFull: If a disk is full. Nothing is recorded, so that the trial can be resumed.
        """
        number = self._start(trial)
        last: Mapping[str, Any] = trial.last_result or {}
        failure, epoch = TrialFailure.from_tune_result(last), EpochResult.from_tune_result(last)
        if failure is None:
            self._end(trial, *self._ledger.classify_end(number, finished=epoch is not None and epoch.finished))
        elif failure.kind == "disk_full":
            raise DiskFull(failure.reason)
        elif failure.kind == "withdrawn":
            self._withdraw(number)
        else:
            self._end(trial, failure.kind, failure.reason)
        # Tune keeps each ended trial with statistics of all its metrics, which nothing reads.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    @stop_after_error
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that failed with an error. A trial that lost its Tune actor is suggested again."""
        reason = self._failure_reason(trial)
        if reason is not None or not self.running.mark_lost(TrialSpec.from_tune_config(trial.config).number):
            self._end(trial, "failed", reason or f"the Tune actor of the trial was lost {MAX_ACTOR_LOSSES} times")

    def answer(self, number: int, config: TrialConfig, earlier: TrialRecord) -> None:
        """Record a trial with the results of an earlier one that has an identical configuration.

        Args:
            number: Number of the trial, which is running.
            config: Its configuration.
            earlier: The trial that has ended.
        """
        self._ledger.mark_as_equal(number, earlier.number)
        for listener in self._listeners:
            listener.on_trial_start(number, config)
        for epoch, metrics in sorted(earlier.epochs.items()):
            self._ledger.report(number, epoch, metrics)
            for listener in self._listeners:
                listener.on_epoch_end(number, EpochResult(epoch, metrics))
        assert earlier.state in ("complete", "pruned", "infeasible")
        self._record_end(number, earlier.state, f"identical to trial {earlier.number}")

    def notify_end_elsewhere(self, number: int) -> None:
        """Notify the listeners of a trial whose end another driver has recorded."""
        for listener in self._listeners:
            listener.on_trial_end_elsewhere(number)

    def _withdraw(self, number: int) -> None:
        """Stop, pause or continue a trial whose job was withdrawn."""
        match self.choose_withdrawal(number):
            case "stop":
                self.end_stopped(number)
            case "pause":
                self.pause(number)
            case "again":
                self.running.suggest_again(number)

    def end_stopped(self, number: int) -> None:
        """Record the end of a trial that a command has stopped; Tune does not have the trial or its job has ended."""
        self._notify_start(number)
        self._record_end(number, "pruned", STOPPED)

    def pause(self, number: int) -> None:
        """Record that a trial is paused; Tune does not have the trial or its job has ended."""
        self._notify_start(number)
        self._started.discard(number)
        self._ledger.pause_trial(number)
        self.running.pause(number)
        for listener in self._listeners:
            listener.on_trial_pause(number)

    def _end(self, trial: Trial, state: FinalState, reason: str | None) -> None:
        self._record_end(self._start(trial), state, reason)

    def _record_end(self, number: int, state: FinalState, reason: str | None) -> None:
        for listener in self._listeners:
            listener.on_trial_end(number, state, reason)
        self._ledger.end(number, state, reason)
        self.running.remove(number)
        for listener in self._listeners:
            listener.on_trial_recorded(number)

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune pickles its callbacks, and the ledger cannot be pickled."""
        return {}
