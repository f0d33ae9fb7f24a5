"""The searcher of a study that several drivers share."""

from __future__ import annotations

import time
from collections.abc import Callable

from clinie_core.config import TrialConfig
from search.config.search_space import SearchSpace
from search.ledger.leases import StudyLeases
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord
from search.ledger.shared_trials import SharedTrials, TrialCounts
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher, ListClasses
from search.tune.trials_elsewhere import TrialsElsewhere

__all__ = ["SharedSearcher"]

REFRESH_SECONDS = 1.0
"""Time between two readings of the other drivers' trials."""
MAX_SHARE = 0.1
"""Largest share of the driver's time that the reading of a slow ledger may take."""


class SharedSearcher(LedgerSearcher):
    """Searcher that suggests trials without a driver: interrupted ones first, then new ones, then runs of finalists.

    It ends after the last trial of all drivers, so that it can take up the trials of a driver that dies.

    Args:
        ledger: The study.
        leases: Leases of this driver.
        space: The search space.
        running: Receives each trial that is suggested.
        may_start: Whether another trial may start, from the number of running trials.
        answer: Records a trial with the results of an earlier one that has an identical configuration.
        list_classes: Returns the names of the resource classes that a trial tries in turn.
        read_budget: Returns the number of trials of the study, without runs of finalists.
        elsewhere: Receives the epochs and the ends of the other drivers' trials.
    """

    def __init__(
        self,
        ledger: Ledger,
        leases: StudyLeases,
        space: SearchSpace,
        running: RunningTrials,
        may_start: Callable[[int], bool],
        answer: Callable[[int, TrialConfig, TrialRecord], None],
        list_classes: ListClasses,
        *,
        read_budget: Callable[[], int],
        elsewhere: TrialsElsewhere,
    ) -> None:
        super().__init__(ledger, space, 0, running, may_start, answer, list_classes)
        self._interrupted = []
        self._shared = SharedTrials(ledger, leases, space.file.final_runs)
        self._read_budget = read_budget
        self._elsewhere = elsewhere
        self._counts: TrialCounts = self._shared.count(read_budget())
        self._known_ends = set(self._counts.ended)
        self._own: set[int] = set()
        self._next_refresh = 0.0

    @property
    def unfinished(self) -> int:
        """Number of trials that this driver trains or may train."""
        counts, finalists = self._refresh(), self._finalists
        finals = finalists.most_runs if finalists is not None and counts.free else 0
        return len(self.running) + (counts.free + finals if self.gate.may_start() else 0)

    @property
    def interrupted(self) -> tuple[int, ...]:
        """Numbers of the trials without another driver that a command has stopped or paused."""
        if any(map(self.gate.must_not_run, self._refresh().interrupted)):
            held = self._shared.take_held(self.gate.must_not_run)
            self._interrupted += held
            for number, _ in held:
                self._add_own(number)
            self._next_refresh = 0.0
        return super().interrupted

    def add_trials(self, count: int) -> None:
        """No-op: the budget of all drivers is read again."""

    def _refresh(self) -> TrialCounts:
        """Return the counts of the study's trials, at most about a second old."""
        now = time.monotonic()
        if now >= self._next_refresh:
            self._counts = self._shared.count(self._get_budget())
            self._elsewhere.add_epochs(self._counts.epochs)
            for number in sorted(self._counts.ended - self._known_ends):
                if number not in self._own:
                    self._elsewhere.add_end(number)
            self._known_ends |= self._counts.ended
            done = time.monotonic()
            self._next_refresh = done + max(REFRESH_SECONDS, (done - now) / MAX_SHARE)
        return self._counts

    def _get_budget(self) -> int:
        return 0 if self.ended_because is not None else self._read_budget()

    def _check_end(self) -> None:
        if self.ended_because is None and self._refresh().free:
            self.ended_because = self.find_end()
            self._next_refresh = 0.0 if self.ended_because is not None else self._next_refresh

    def _has_next(self) -> bool:
        return self._refresh().free > 0

    def _take_next(self) -> tuple[int, TrialConfig] | None:
        taken = self._shared.take(self._space, self._get_budget(), self.gate.must_not_run)
        if taken is None:  # another driver was faster, so that the next attempt waits for the next reading
            self._counts = self._counts.without_free()
        else:
            self._add_own(taken[0])
            self._next_refresh = 0.0
        return taken

    def _add_own(self, number: int) -> None:
        self._own.add(number)
        self._elsewhere.remove(number)

    def _is_incomplete(self) -> bool:
        """Return whether a trial of any driver has not ended."""
        if super()._is_incomplete():
            return True
        self._next_refresh = 0.0 if not self._counts.free and not self._counts.elsewhere else self._next_refresh
        counts = self._refresh()
        return bool(counts.free or counts.elsewhere or counts.interrupted)
