"""Control of a running search from another process: sends commands through the ledger and waits for the decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from clinie_core.errors import InputError, Problem, fail
from search.control.command_log import CommandLog
from search.control.commands import Command, CommandEntry, CommandKind, check_id, make_id, now
from search.control.control_state import ControlState, check_command
from search.ledger.ledger import Ledger

__all__ = ["StudyControl"]

PAUSE_SECONDS = 0.1
WAIT_SECONDS = 30.0
"""Time to wait for the driver, which may be uploading a checkpoint."""


class StudyControl:
    """Commands to the running search of a study.

    The search may run on this machine or on another one, as long as both use the same ledger. Every command returns
    its entry in the ledger once the driver has decided on it; the decision is None if the driver did not answer within
    30 seconds. The next driver of the study then decides on it.

    Args:
        ledger: Ledger of the study.
        is_running: Returns whether a search of the study is running.
    """

    def __init__(self, ledger: Ledger, is_running: Callable[[], bool]) -> None:
        self._ledger = ledger
        self._log = CommandLog(ledger)
        self._is_running = is_running

    @property
    def commands(self) -> list[CommandEntry]:
        """All commands that the study has received, the latest last."""
        return self._log.read()

    @property
    def is_paused(self) -> bool:
        """True if the whole search is paused."""
        return ControlState.from_entries(self._log.read()).is_paused

    @property
    def has_pause(self) -> bool:
        """True if a trial or the whole search is paused."""
        return ControlState.from_entries(self._log.read()).has_pause

    def stop(self, trial: int, *, id_: str | None = None) -> CommandEntry:
        """Stop a trial before its next training step. It ends as ``pruned``, with the scores of its finished epochs.

        Args:
            trial: Number of the trial.
            id_: Id of the command: a repeated command with the same id has no effect. Default: a new id.

        Raises:
            InputError: If no search is running, there is no such trial, or it has ended.
        """
        return self._send("stop", trial, id_)

    def pause(self, trial: int | None = None, *, id_: str | None = None) -> CommandEntry:
        """Pause a trial, or the whole search, before the next training step.

        A paused trial holds no worker. The search does not end while a trial is paused.

        Args:
            trial: Number of the trial; None for all trials.
            id_: As for :meth:`stop`.

        Raises:
            InputError: As for :meth:`stop`.
        """
        return self._send("pause", trial, id_)

    def resume(self, trial: int | None = None, *, id_: str | None = None) -> CommandEntry:
        """Resume a paused trial after its last finished epoch, or all paused trials and the search.

        Args:
            trial: Number of the trial; None for everything that is paused.
            id_: As for :meth:`stop`.

        Raises:
            InputError: As for :meth:`stop`, or if the whole search is paused and a trial is given.
        """
        return self._send("resume", trial, id_)

    def clone(self, trial: int, changes: Mapping[str, Any], *, id_: str | None = None) -> CommandEntry:
        """Add a trial with the configuration of another one and some changes; it is started next.

        Args:
            trial: Number of the trial to clone, which may have ended.
            changes: Values of dimensions that differ, by path.
            id_: As for :meth:`stop`.

        Raises:
            InputError: If no search is running, there is no such trial, or the space does not have a changed value.
        """
        return self._send("clone", trial, id_, changes=dict(changes))

    def add_budget(self, *, trials: int = 0, hours: float = 0.0, id_: str | None = None) -> CommandEntry:
        """Add trials to the budget of the search, or hours to its time limit.

        Args:
            trials: Number of additional trials.
            hours: Additional hours.
            id_: As for :meth:`stop`.

        Raises:
            InputError: If no search is running, nothing is added, or hours are added without a time limit.
        """
        return self._send("add-budget", None, id_, trials=trials, hours=hours)

    def _send(self, kind: CommandKind, trial: int | None, id_: str | None, **values: Any) -> CommandEntry:
        command = Command(check_id(id_) if id_ else make_id(), kind, now(), trial, **values)
        if self._log.find(command.id) is None:
            self._check(command)
        self._log.send(command)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            entry = self._log.find(command.id)
            assert entry is not None, "the command was just written"
            if entry.decision is not None and entry.decision.problem is not None:
                raise InputError(entry.decision.problem)
            if entry.decision is not None or time.monotonic() > deadline or not self._is_running():
                return entry
            time.sleep(PAUSE_SECONDS)

    def _check(self, command: Command) -> None:
        """Check what is known without the driver, so that a wrong command is not written."""
        name = self._ledger.name
        if not self._is_running():
            remedy = f"start it with: clinie resume {name}"
            if command.kind == "add-budget" and command.trials:
                remedy = f"add trials and continue it with: clinie extend {name} --trials {command.trials}"
            fail("study", f"no search of {name!r} is running", allowed="a running search", remedy=remedy)
        found = check_command(
            command,
            ControlState.from_entries(self._log.read()),
            self._ledger.find_record(command.trial) if command.trial is not None else None,
            trials=self._ledger.count_trials(),
            has_time_limit=(self._ledger.attributes["space"]["budget"].get("hours")) is not None,
        )
        if isinstance(found, Problem):
            raise InputError(found)
