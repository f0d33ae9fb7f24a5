"""The follower of a running search: reads its ledger and passes what is new to a progress display."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from clinie_core.errors import fail
from search.config.space_file import Budget
from search.control.command_log import CommandLog
from search.control.control_state import ControlState
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED, TrialRecord
from search.study.progress import Progress
from search.trials.result import EpochResult

__all__ = ["StudyFollower", "follow_study"]

POLL_SECONDS = 0.5


def follow_study(ledger: Ledger, budget: Budget, console: Console | None, is_running: Callable[[], bool]) -> str:
    """Display a running search until it ends.

    Args:
        ledger: Ledger of the study.
        budget: Budget of the space.
        console: Console to print to; standard output if None.
        is_running: Returns whether the search is running.

    Returns:
        The counts of the ended trials and the best one, in one line.

    Raises:
        InputError: If no search of the study is running.
    """
    if not is_running():
        remedy = f"show its trials with: clinie status {ledger.name}"
        fail("study", f"no search of {ledger.name!r} is running", allowed="a running search", remedy=remedy)
    progress = Progress(console or Console(highlight=False), budget.trials, budget.hours)
    StudyFollower(ledger, progress, is_running).follow()
    return progress.describe_end()


class StudyFollower:
    """Follower of a search that runs in another process, on this or another machine.

    It creates the events of :mod:`search.trials.listener` from the records of the ledger.

    Args:
        ledger: Ledger of the study.
        progress: The display.
        is_running: Returns whether the search is running.
    """

    def __init__(self, ledger: Ledger, progress: Progress, is_running: Callable[[], bool]) -> None:
        self._ledger = ledger
        self._log = CommandLog(ledger)
        self._progress = progress
        self._is_running = is_running
        self._started: dict[int, int] = {}
        """Number of epochs that the display has, by the number of each trial that it shows as running."""
        self._ended: set[int] = set()
        self._shown_commands: set[str] = set()

    def follow(self) -> None:
        """Display the search until it ends."""
        records, entries = self._ledger.records(), self._log.read()
        self._ended = {record.number for record in records if record.state in ENDED}
        self._shown_commands = {entry.command.id for entry in entries if entry.decision is not None}
        self._progress.add_trials(ControlState.from_entries(entries).added_trials)
        with self._progress.watch(self._ledger, records):
            while True:
                is_running = self._is_running()  # before the reading, so that the last events are read
                self.update()
                if not is_running:
                    return
                time.sleep(POLL_SECONDS)

    def update(self) -> None:
        """Read the ledger once and pass what is new to the display."""
        for entry in self._log.read():
            if entry.decision is not None and entry.command.id not in self._shown_commands:
                self._shown_commands.add(entry.command.id)
                self._progress.show_command(entry)
        paused = ControlState.from_entries(self._log.read()).is_paused
        self._progress.show_wait("the search is paused" if paused else None)
        for number in range(self._ledger.count_trials()):
            if number not in self._ended and (record := self._ledger.find_record(number)) is not None:
                self._update_trial(record)

    def _update_trial(self, record: TrialRecord) -> None:
        number, progress = record.number, self._progress
        progress.show_driver(number, record.driver)
        is_running, has_ended = record.state == "running", record.state in ENDED
        if number not in self._started and (is_running or has_ended) and record.config is not None:
            progress.on_trial_start(number, record.config)
            self._started[number] = 0
        if number not in self._started:
            return
        for epoch in sorted(record.epochs)[self._started[number] :]:
            progress.on_epoch_end(number, EpochResult(epoch, record.epochs[epoch]))
        self._started[number] = len(record.epochs)
        if record.state in ("complete", "pruned", "infeasible", "failed"):
            progress.on_trial_end(number, record.state, record.reason)
            self._ended.add(number)
            del self._started[number]
        elif not is_running:
            progress.on_trial_pause(number)
            del self._started[number]
