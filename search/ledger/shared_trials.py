"""The trials of a study that several drivers share: which one a driver trains next.

A trial is chosen, created, drawn and leased in one exclusive section of the drivers, so that the number of trials
equals the budget and no trial has two drivers. A driver that is killed within the section leaves a trial without a
lease, which the next driver takes up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from clinie_core.config import TrialConfig
from search.config.search_space import SearchSpace
from search.config.space_file import Finalists
from search.ledger.leases import StudyLeases
from search.ledger.ledger import Ledger
from search.ledger.records import REPEATS, count_epochs

__all__ = ["SharedTrials", "TrialCounts"]


@dataclass(frozen=True)
class TrialCounts:
    """Counts of a study's trials, for one of its drivers.

    Args:
        free: Number of trials that this driver may train: interrupted ones, enqueued ones and those not created yet.
        elsewhere: Number of unfinished trials of other drivers.
        interrupted: Numbers of the unfinished trials without a driver.
        ended: Numbers of the trials that have ended.
        epochs: Number of epochs of each unfinished trial that this driver does not train, without runs of finalists.
    """

    free: int
    elsewhere: int
    interrupted: tuple[int, ...]
    ended: frozenset[int]
    epochs: Mapping[int, int]

    def without_free(self) -> TrialCounts:
        """Return the counts after another driver has taken the trials that were free."""
        return replace(self, free=0)


class SharedTrials:
    """The trials of a study that several drivers share.

    Args:
        ledger: The study.
        leases: Leases of this driver.
        finalists: Number of finalists and of their seeds; None for none.
    """

    def __init__(self, ledger: Ledger, leases: StudyLeases, finalists: Finalists | None) -> None:
        self._ledger = ledger
        self._leases = leases
        self._finalists = finalists

    def count(self, budget: int) -> TrialCounts:
        """Count the trials.

        Args:
            budget: Number of trials of the study, without runs of finalists.
        """
        leased, trials = self._read()
        unfinished = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
        elsewhere = [number for number in unfinished if leased.get(number, self._leases.name) != self._leases.name]
        interrupted = tuple(number for number in unfinished if number not in leased)
        free = len(interrupted)
        free += sum(trial.state == TrialState.WAITING and REPEATS in trial.user_attrs for trial in trials)
        free += max(0, budget - _count_drawn(trials))
        if not unfinished and not free and self._finalists is not None:
            free = self._ledger.count_finals(self._finalists)
        ended = frozenset(trial.number for trial in trials if trial.state.is_finished())
        epochs = {
            trial.number: count_epochs(trial.user_attrs)
            for trial in trials
            if trial.state == TrialState.RUNNING
            and leased.get(trial.number) != self._leases.name
            and REPEATS not in trial.user_attrs
        }
        return TrialCounts(free, len(elsewhere), interrupted, ended, epochs)

    def take(
        self, space: SearchSpace, budget: int, must_not_run: Callable[[int], bool]
    ) -> tuple[int, TrialConfig] | None:
        """Choose the next trial of this driver, draw its configuration if it has none, and lease it.

        Args:
            space: The space to draw from.
            budget: Number of trials of the study, without runs of finalists.
            must_not_run: Returns whether a command has stopped or paused a trial.

        Returns:
            Number and configuration of the trial; None if there is none now.
        """
        return self._leases.run_exclusively(lambda: self._take(space, budget, must_not_run))

    def _take(
        self, space: SearchSpace, budget: int, must_not_run: Callable[[int], bool]
    ) -> tuple[int, TrialConfig] | None:
        leased, trials = self._read()
        unfinished = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in unfinished:
            if trial.number not in leased and not must_not_run(trial.number) and "config" in trial.user_attrs:
                return self._take_up(trial.number)
        for trial in unfinished:
            if trial.number not in leased and "config" not in trial.user_attrs:  # its driver was killed in the draw
                return self._draw(space, trial.number)
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        repeats = [trial.number for trial in waiting if REPEATS in trial.user_attrs]
        if repeats:
            return self._draw(space, repeats[0])
        if _count_drawn(trials) < budget:
            return self._draw(space, waiting[0].number if waiting else len(trials))
        if not unfinished and self._finalists is not None and self._ledger.enqueue_finals(self._finalists):
            return self._draw(space, len(trials))
        return None

    def _read(self) -> tuple[dict[int, str], list[FrozenTrial]]:
        """Return the leases and the trials, in this order: a trial ends before its lease does."""
        leased = self._leases.read()
        return leased, self._ledger.queue.read_trials()

    def take_held(self, must_not_run: Callable[[int], bool]) -> list[tuple[int, TrialConfig]]:
        """Lease the interrupted trials that a command has stopped or paused, so that this driver records that."""

        def take() -> list[tuple[int, TrialConfig]]:
            leased = self._leases.read()
            free = [r.number for r in self._ledger.find_interrupted_trials() if r.number not in leased]
            return [self._take_up(number) for number in free if must_not_run(number)]

        return self._leases.run_exclusively(take)

    def _take_up(self, number: int) -> tuple[int, TrialConfig]:
        self._lease(number)
        record = self._ledger.record(number)
        assert record.config is not None, "the trial was drawn"
        self._ledger.resume_trial(number)
        return number, record.config

    def _draw(self, space: SearchSpace, number: int) -> tuple[int, TrialConfig]:
        drawn, config = self._ledger.ask(space, number)
        self._lease(drawn)
        return drawn, config

    def _lease(self, number: int) -> None:
        is_own = self._leases.claim(number)
        assert is_own, "no other driver claims a trial within this section"
        self._ledger.set_driver(number, self._leases.name)


def _count_drawn(trials: list[FrozenTrial]) -> int:
    """Return the number of created trials that the budget counts."""
    return sum(trial.state != TrialState.WAITING and REPEATS not in trial.user_attrs for trial in trials)
