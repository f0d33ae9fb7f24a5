"""Control of a running search: applies the commands that the ledger receives to the trials of Tune and of the pool.

The ledger is read twice per second. A trial that a command stops or pauses ends its job first. Tune then receives the
end of that trial, and the recorder writes to the ledger what the command requests. The comparison of trials and
commands is repeated at each reading, so that no command is lost with a job queue that is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from search.control.command_processor import CommandProcessor
from search.control.commands import Command
from search.tune.recorder import StudyRecorder, Withdrawal
from search.tune.running_trials import RunningTrials, stop_after_error
from search.tune.searcher import LedgerSearcher, SuggestionGate

__all__ = ["TrialControl"]

POLL_SECONDS = 0.5
MAX_SHARE = 0.1
"""Largest share of the driver's time that the reading of a slow ledger may take."""


class TrialControl(SuggestionGate):
    """Control of the trials of a running search.

    Args:
        commands: Decides the commands.
        running: The running and paused trials.
        searcher: Suggests further trials.
        recorder: Records stopped and paused trials.
        withdraw: Requests that the jobs of a trial end, by its number; may have no effect.
        hours: Time limit of the run in hours; None for no limit.
            The time of a pause of the whole search does not count.
        must_end: Called at every step; returns whether the search ends for another reason than its time limit.
    """

    def __init__(
        self,
        commands: CommandProcessor,
        running: RunningTrials,
        searcher: LedgerSearcher,
        recorder: StudyRecorder,
        withdraw: Callable[[int], None],
        *,
        hours: float | None,
        must_end: Callable[[], bool] = lambda: False,
    ) -> None:
        self._commands = commands
        self.running = running
        self._searcher = searcher
        self._recorder = recorder
        self._withdraw = withdraw
        self._must_end = must_end
        self._seconds_left = None if hours is None else hours * 3600
        self._last_step = time.monotonic()
        self._next_poll = 0.0
        searcher.gate = self
        recorder.choose_withdrawal = self._choose_withdrawal

    @property
    def is_paused(self) -> bool:
        """True if the whole search is paused."""
        return self._commands.state.is_paused

    def is_over(self) -> bool:
        """Read the commands, and return whether the search ends.

        Tune calls only the searcher while it has no trial, such as in a pause.
        """
        self.step()
        is_time_up = self._seconds_left is not None and self._seconds_left <= 0
        return is_time_up or self._must_end()

    def may_start(self) -> bool:
        """Return whether another trial may start."""
        return not self.is_paused

    def must_not_run(self, number: int) -> bool:
        """Return whether a command has stopped or paused a trial."""
        state = self._commands.state
        return number in state.stopped or number in state.paused

    @stop_after_error
    def step(self) -> None:
        """Apply new commands, unless the last reading was less than half a second ago."""
        now = time.monotonic()
        if self._seconds_left is not None and not self.is_paused:
            self._seconds_left -= now - self._last_step
        self._last_step = now
        if now >= self._next_poll:
            self.apply_commands()
            done = time.monotonic()
            self._next_poll = done + max(POLL_SECONDS, (done - now) / MAX_SHARE)

    def apply_commands(self) -> None:
        """Read the commands and apply them."""
        for command in self._commands.process():
            self._extend_budget(command)
        state = self._commands.state
        for number in self._searcher.interrupted:
            if number in state.stopped or number in state.paused:
                self.running.add(number, self._searcher.remove_interrupted(number))
                self._recorder.end_stopped(number) if number in state.stopped else self._recorder.pause(number)
        for number in self.running.paused:
            if number in state.stopped:
                self._recorder.end_stopped(number)
            elif not state.holds(number):
                self.running.resume(number)
        for number in self.running.numbers:
            if number in state.stopped or state.holds(number):
                self._withdraw(number)

    def _extend_budget(self, command: Command) -> None:
        if command.kind == "clone":
            self._searcher.add_trials(1)
        elif command.kind == "add-budget":
            self._searcher.add_trials(command.trials)
            if self._seconds_left is not None:
                self._seconds_left += command.hours * 3600

    def _choose_withdrawal(self, number: int) -> Withdrawal:
        state = self._commands.state
        return "stop" if number in state.stopped else "pause" if state.holds(number) else "again"
