"""The commands of a study in its ledger."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from clinie_core.errors import fail
from search.control.commands import Command, CommandEntry, Decision
from search.ledger.ledger import Ledger

__all__ = ["CommandLog"]

COMMAND = "command."
DECISION = "decision."


class CommandLog:
    """Commands and decisions of one study.

    Args:
        ledger: Ledger of the study.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def send(self, command: Command) -> None:
        """Write a command, unless the study has one with its id.

        Raises:
            InputError: If the study has another command with its id.
        """
        known = self._ledger.find_attributes(COMMAND).get(command.id)
        if known is None:
            self._ledger.set_attribute(COMMAND + command.id, command.to_json())
        elif not command.is_same(Command.from_json(command.id, known)):
            found = f"{command.id} is the id of another command: {Command.from_json(command.id, known)}"
            fail("--id", found, allowed="an id that the study has not received")

    def decide(self, command: Command, decision: Decision) -> None:
        """Write the decision on a command; only the driver of the study does."""
        self._ledger.set_attribute(DECISION + command.id, decision.to_json())

    def read(self) -> list[CommandEntry]:
        """Return all commands with their decisions, in the order in which they were decided, then sent."""
        decisions: dict[str, Any] = self._ledger.find_attributes(DECISION)
        entries = [
            CommandEntry(
                Command.from_json(id_, content), Decision.from_json(decisions[id_]) if id_ in decisions else None
            )
            for id_, content in self._ledger.find_attributes(COMMAND).items()
        ]
        return sorted(entries, key=_sort_key)

    def find_undecided(self, decided: Container[str]) -> list[Command]:
        """Return the commands without a decision, in the order in which they were sent.

        Args:
            decided: Ids of the commands that have one, so that they need not be parsed.
        """
        sent = self._ledger.find_attributes(COMMAND)
        new = [Command.from_json(id_, content) for id_, content in sent.items() if id_ not in decided]
        return sorted(new, key=lambda command: (command.at, command.id))

    def find(self, id_: str) -> CommandEntry | None:
        """Return one command with its decision; None if the study has none with this id."""
        return next((entry for entry in self.read() if entry.command.id == id_), None)


def _sort_key(entry: CommandEntry) -> tuple[bool, int, int, str]:
    decision, command = entry.decision, entry.command
    return decision is None, decision.order if decision else 0, command.at, command.id
