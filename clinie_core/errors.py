"""The errors that a user can mend, each one line: where, what was found, what is allowed, what to do.

A message never quotes the text of a document: notes are patient data. Documents are named by their
file or id, places in them by offset or line.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

__all__ = ["DiskFull", "ErrorList", "InputError", "OutOfMemory", "Problem", "fail", "map_disk_full"]

SHOWN_PROBLEMS = 20
MAX_PART = 400


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Args:
        where: File and line (``notes/a.ann:3``) or key path (``space.finetuning.lora.rank``).
        found: What stands there, without document text.
        allowed: What may stand there; empty where ``found`` says it all.
        remedy: What the user can do; empty where it is plain.
    """

    where: str
    found: str
    allowed: str = field(default="", kw_only=True)
    remedy: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        return f"{_shorten(self.where)}: " + "; ".join(
            _shorten(p) for p in (self.found, self.allowed, self.remedy) if p
        )


def _shorten(part: str) -> str:
    """One line of bounded length: a broken file's ids and keys can be anything."""
    line = " ".join(part.split())
    return line if len(line) <= MAX_PART else f"{line[:MAX_PART]}..."


class InputError(Exception):
    """The input is wrong and the user can mend it; carries every problem that was found.

    Args:
        problems: One problem, or all problems of one input.
    """

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        hidden = len(self.problems) - len(lines)
        if hidden > 0:
            lines.append(f"... and {hidden} more problems")
        return "\n".join(lines)


class ErrorList:
    """Collects problems, so that a user sees all of an input's faults at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, where: str, found: str, *, allowed: str = "", remedy: str = "") -> None:
        """Add one problem; see :class:`Problem` for the arguments."""
        self._problems.append(Problem(where, found, allowed=allowed, remedy=remedy))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add the problems of a part, for example of one file of a corpus."""
        self._problems.extend(problems)

    def raise_if_any(self) -> None:
        """Raise what was collected.

        Raises:
            InputError: If at least one problem was added.
        """
        if self._problems:
            raise InputError(self._problems)


def fail(where: str, found: str, *, allowed: str = "", remedy: str = "") -> NoReturn:
    """Raise an :class:`InputError` with one problem."""
    raise InputError(Problem(where, found, allowed=allowed, remedy=remedy))


class OutOfMemory(RuntimeError):
    """A training did not fit into memory.

    Args:
        micro_batch: Windows that a process computed at once.
        peak_memory_mb: The most that it held, in MiB.
    """

    def __init__(self, micro_batch: int, peak_memory_mb: float) -> None:
        self.micro_batch = micro_batch
        self.peak_memory_mb = peak_memory_mb
        super().__init__(
            f"out of memory with {micro_batch} windows at once, after {peak_memory_mb:.0f} MiB; a smaller micro_batch"
            " or gradient_checkpointing would need less"
        )


class DiskFull(RuntimeError):
    """A disk is full; the message says which place could not be written."""


@contextmanager
def map_disk_full(place: Path) -> Iterator[None]:
    """Within this context an error of a full disk, whoever raises it, becomes :class:`DiskFull`.

    Args:
        place: The file or folder that is written.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not _is_disk_full_error(cause):
            cause = cause.__context__  # torch says what went wrong only there
        if cause is None:
            raise
        found = f"{place} cannot be written: {os.strerror(errno.ENOSPC)}"
        raise DiskFull(f"{found}; free some space and go on") from None


def _is_disk_full_error(error: BaseException) -> bool:
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
