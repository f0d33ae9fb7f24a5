"""The trials of other drivers of a study, as the scheduler and the listeners of this driver see them."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from collections.abc import Mapping

from ray.tune.schedulers import TrialScheduler

from search.ledger.ledger import Ledger
from search.tune.recorder import StudyRecorder
from search.tune.schedulers import forget_trial, replay_trials

__all__ = ["TrialsElsewhere"]


class TrialsElsewhere:
    """Trials of other drivers; their epochs count for the early stops of this one.

    The epochs of a trial are read again only if their number has changed.

    Args:
        ledger: The study.
        scheduler: Receives the results.
        recorder: Notifies the listeners of the ends.
    """

    def __init__(self, ledger: Ledger, scheduler: TrialScheduler, recorder: StudyRecorder) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._recorder = recorder
        self._epochs: dict[int, int] = {}

    def add_epochs(self, epochs: Mapping[int, int]) -> None:
        """Pass new epochs to the scheduler.

        Args:
            epochs: Number of epochs of each trial that has not ended, by number of the trial.
        """
        for number, count in epochs.items():
            if count > self._epochs.get(number, 0):
                self._epochs[number] = count
                replay_trials(self._scheduler, [self._ledger.record(number)])

    def add_end(self, number: int) -> None:
        """Pass the results of a trial that has ended to the scheduler, and notify the listeners."""
        self._epochs.pop(number, None)
        replay_trials(self._scheduler, [self._ledger.record(number)])
        self._recorder.notify_end_elsewhere(number)

    def remove(self, number: int) -> None:
        """Forget the results of a trial that this driver takes up, because its job repeats its epochs."""
        if self._epochs.pop(number, None):
            forget_trial(self._scheduler, number)
