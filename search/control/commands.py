"""Commands to a running search, and the driver's decisions on them.

A command is one attribute of the study in the ledger, and the decision is another one. Each is written once and by one
process, so that no write is lost and a repeated write has no effect.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from clinie_core.errors import Problem, fail

__all__ = ["Command", "CommandEntry", "CommandKind", "Decision", "check_id", "make_id", "now"]

CommandKind = Literal["stop", "pause", "resume", "clone", "add-budget"]
ID = re.compile(r"[A-Za-z0-9-]{1,40}")


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def make_id() -> str:
    """Return a new id of a command."""
    return uuid.uuid4().hex[:12]


def check_id(id_: str) -> str:
    """Return an id that a user has chosen.

    Raises:
        InputError: If it has other characters than letters, digits and hyphens, or more than 40.
    """
    if not ID.fullmatch(id_):
        fail("--id", f"found {id_!r}", allowed="1 to 40 letters, digits and hyphens")
    return id_


@dataclass(frozen=True)
class Command:
    """A command to a running search.

    Args:
        id: Identifies the command: a second one with the same id has no effect.
        kind: What to do.
        at: Time at which it was sent, in milliseconds since 1970.
        trial: Number of the trial; None for the whole search.
        changes: For ``clone``: values of dimensions that differ from those of the trial, by path.
        trials: For ``add-budget``: number of additional trials.
        hours: For ``add-budget``: additional run time in hours.
    """

    id: str
    kind: CommandKind
    at: int
    trial: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    hours: float = 0.0

    def __str__(self) -> str:
        if self.kind == "add-budget":
            parts = [f"{self.trials} trials"] if self.trials else []
            parts += [f"{self.hours:g} hours"] if self.hours else []
            return f"add-budget of {' and '.join(parts)}"
        target = "the search" if self.trial is None else f"trial {self.trial}"
        changes = "".join(f" {path}={value}" for path, value in self.changes.items())
        return f"{self.kind} {target}{changes}"

    def is_same(self, other: Command) -> bool:
        """Return whether another command has the same content; times do not matter."""
        return {**asdict(self), "at": 0} == {**asdict(other), "at": 0}

    def to_json(self) -> dict[str, Any]:
        """Return the command without its id as a JSON value."""
        content = asdict(self)
        del content["id"]
        return content

    @classmethod
    def from_json(cls, id_: str, content: Mapping[str, Any]) -> Command:
        """Read a command from its JSON value."""
        return cls(id=id_, **content)


@dataclass(frozen=True)
class Decision:
    """The driver's decision on a command.

    Args:
        order: Number of earlier decisions of the study.
        at: Time of the decision, in milliseconds since 1970.
        problem: Why the command was rejected; None if it was accepted.
        note: What follows from an accepted command; empty if the command says it all.
    """

    order: int
    at: int
    problem: Problem | None = None
    note: str = ""

    @property
    def is_accepted(self) -> bool:
        """True if the command was accepted."""
        return self.problem is None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"rejected: {self.problem}"
        return f"accepted: {self.note}" if self.note else "accepted"

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        """Read a decision from its JSON value."""
        problem = content["problem"]
        return cls(content["order"], content["at"], Problem(**problem) if problem else None, content["note"])


@dataclass(frozen=True)
class CommandEntry:
    """A command with the decision on it.

    Args:
        command: The command.
        decision: The decision; None while no driver has read the command.
    """

    command: Command
    decision: Decision | None

    @property
    def time(self) -> str:
        """Time in UTC at which the command was sent."""
        return f"{datetime.fromtimestamp(self.command.at / 1000, UTC):%Y-%m-%d %H:%M:%S}"

    def __str__(self) -> str:
        return f"{self.time} UTC, {self.command}: {self.decision or 'not read yet'}"

    def as_json(self) -> dict[str, Any]:
        """Return the entry for ``--json``."""
        decision = self.decision
        return {
            "id": self.command.id,
            **self.command.to_json(),
            "state": "waiting" if decision is None else "accepted" if decision.is_accepted else "rejected",
            "decided_at": decision.at if decision else None,
            "note": (str(decision.problem) if decision.problem else decision.note) if decision else "",
        }
