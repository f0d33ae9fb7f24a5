"""The driver's side of commands: decides each one, and keeps the state that results.

A decision is written to the ledger before it takes effect. The effect is restored from the decisions when a search is
resumed, so that a driver that is killed at any point loses no command and applies none twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinie_core.errors import Problem
from search.config.search_space import SearchSpace
from search.control.command_log import CommandLog
from search.control.commands import Command, CommandEntry, Decision, make_id, now
from search.control.control_state import ControlState, check_clone, check_command, make_clone_point
from search.ledger.ledger import Ledger

__all__ = ["CommandProcessor"]


class CommandProcessor:
    """Decides the commands to a study's search.

    Args:
        ledger: Ledger of the study.
        space: Its search space.
        on_decision: Called with each decided command, also with those of earlier drivers: a second call with the same
            entry must have no further effect.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        on_decision: Callable[[CommandEntry], None] = lambda entry: None,
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._log = CommandLog(ledger)
        self._on_decision = on_decision
        entries = self._log.read()
        self.state = ControlState.from_entries(entries)
        """State that results from the accepted commands."""
        self._decided = {entry.command.id for entry in entries if entry.decision is not None}
        cloned = ledger.queue.find_clones()
        for id_, command in self.state.clones.items():
            if id_ not in cloned:
                self._create_clone(command)
        for entry in entries:
            if entry.decision is not None:
                on_decision(entry)

    @property
    def trials(self) -> int:
        """Number of trials in the budget, with those that commands have added."""
        return self._space.file.budget.trials + self.state.added_trials

    def process(self) -> list[Command]:
        """Decide the commands that were sent since the last call.

        Returns:
            Those that were accepted. Trials are not started or ended here.
        """
        accepted = []
        for command in self._log.find_undecided(self._decided):
            decision = self._decide(command)
            self._log.decide(command, decision)
            self._decided.add(command.id)
            self.state.apply(command, is_accepted=decision.is_accepted)
            if decision.is_accepted:
                if command.kind == "clone":
                    self._create_clone(command)
                accepted.append(command)
            self._on_decision(CommandEntry(command, decision))
        return accepted

    def end_pauses(self) -> None:
        """Resume all trials, as a search does that starts again; recorded as a command if something is paused."""
        self.process()
        if self.state.has_pause:
            self._log.send(Command(make_id(), "resume", now()))
            self.process()

    def _decide(self, command: Command) -> Decision:
        decision = Decision(self.state.decisions, now())
        record = self._ledger.find_record(command.trial) if command.trial is not None else None
        trials = self._ledger.count_trials()
        found = check_command(
            command, self.state, record, trials=trials, has_time_limit=self._space.file.budget.hours is not None
        )
        if isinstance(found, Problem):
            return replace(decision, problem=found)
        if command.kind == "clone" and record is not None:
            problem = check_clone(self._space, record, command.changes)
            note = "" if problem else f"trial {trials}"
            return replace(decision, problem=problem, note=note)
        return replace(decision, note=found)

    def _create_clone(self, command: Command) -> None:
        assert command.trial is not None, "a clone has a trial"
        source = self._ledger.record(command.trial)
        self._ledger.queue.enqueue_clone(make_clone_point(self._space, source, command.changes), command.id)
