"""The driver's side of commands: decides each one, and keeps the state that results.

A decision is written to the ledger before it takes effect. The effect is restored from the decisions when a search is
resumed, so that a driver that is killed at any point loses no command and applies none twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinie_core.errors import Problem
from search.config.search_space import SearchSpace
from search.config.space_file import Budget
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
        self.state = ControlState()
        """State that results from the accepted commands."""
        self._decided: set[str] = set()
        ledger.run_exclusively(self._restore)

    def _restore(self) -> None:
        """Apply the decisions of earlier drivers."""
        for entry in self._log.read():
            if entry.decision is not None and entry.command.id not in self._decided:
                self._apply(entry.command, entry.decision)

    @property
    def trials(self) -> int:
        """Number of trials in the budget, with those that commands have added."""
        return self._space.file.budget.trials + self.state.added_trials

    @property
    def budget(self) -> Budget:
        """The budget with the run time that commands have added; see :attr:`trials` for its trials."""
        budget = self._space.file.budget
        return (
            budget
            if budget.hours is None
            else budget.model_copy(update={"hours": budget.hours + self.state.added_hours})
        )

    def process(self) -> list[Command]:
        """Decide the commands that were sent since the last call, and read the decisions of other drivers.

        Returns:
            Those that were accepted. Trials are not started or ended here.
        """
        if not self._log.find_undecided(self._decided):
            return []
        accepted: list[Command] = []
        self._ledger.run_exclusively(lambda: self._process(accepted))
        return accepted

    def _process(self, accepted: list[Command]) -> None:
        """Apply the decisions of other drivers, then decide the other commands."""
        for command, decision in [(entry.command, entry.decision) for entry in self._log.read()]:
            if command.id in self._decided:
                continue
            found = decision or self._decide(command)
            if decision is None:
                self._log.decide(command, found)
            self._apply(command, found)
            if found.is_accepted:
                accepted.append(command)

    def _apply(self, command: Command, decision: Decision) -> None:
        self._decided.add(command.id)
        self.state.apply(command, is_accepted=decision.is_accepted)
        is_clone = command.kind == "clone" and decision.is_accepted
        if is_clone and command.id not in self._ledger.queue.find_clones():  # its driver was killed before
            self._create_clone(command)
        self._on_decision(CommandEntry(command, decision))

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
