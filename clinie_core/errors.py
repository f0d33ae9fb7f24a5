"""Errors that a user can fix; each is one line: where, what was found, what is allowed, what to do.

A message never quotes the text of a document, because notes are patient data. It names a document by its
file or id, or by hashes of them, and a position in it by offset or line.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from clinie_core.shown_ids import hide_file_names

__all__ = ["DiskFull", "ErrorList", "InputError", "OutOfMemory", "Problem", "fail", "map_disk_full"]

SHOWN_PROBLEMS = 20
MAX_PART = 400


@dataclass(frozen=True)
class Problem:
    """One fault of an input.

    Args:
        where: File and line (``notes/a.ann:3``) or key path (``space.finetuning.lora.rank``).
        found: The value or state found there, without document text.
        allowed: The allowed values; empty if ``found`` implies them.
        remedy: What the user can do; empty if it is obvious.
        severity: ``error``, ``warning``, or the treatment of a faulty part that the user requested:
            ``skipped`` or ``trimmed``.
    """

    where: str
    found: str
    allowed: str = field(default="", kw_only=True)
    remedy: str = field(default="", kw_only=True)
    severity: Literal["error", "warning", "skipped", "trimmed"] = field(default="error", kw_only=True)

    def __str__(self) -> str:
        where, *others = (hide_file_names(p) for p in (self.where, self.found, self.allowed, self.remedy))
        return f"{_shorten(where)}: " + "; ".join(_shorten(p) for p in others if p)


def _shorten(part: str) -> str:
    """Return a single line of bounded length, since the ids and keys of a broken file can be arbitrary."""
    line = " ".join(part.split())
    return line if len(line) <= MAX_PART else f"{line[:MAX_PART]}..."


class InputError(Exception):
    """An invalid input that the user can fix, with all problems found.

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
    """Collection of problems, so that a user sees all faults of an input at once.

    Warnings and skipped parts are collected in ``notices``; they are no errors.
    """

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self.notices: list[Problem] = []

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, where: str, found: str, *, allowed: str = "", remedy: str = "") -> None:
        """Add one problem; see :class:`Problem` for the arguments."""
        self._problems.append(Problem(where, found, allowed=allowed, remedy=remedy))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several problems, for example those of one file of a corpus."""
        for problem in problems:
            (self._problems if problem.severity == "error" else self.notices).append(problem)

    def take_problems(self) -> list[Problem]:
        """Remove and return the problems that are errors."""
        taken, self._problems = self._problems, []
        return taken

    def raise_if_any(self) -> None:
        """Raise all collected problems as one error.

        Raises:
            InputError: If at least one problem was added.
        """
        if self._problems:
            raise InputError(self._problems)


def fail(where: str, found: str, *, allowed: str = "", remedy: str = "") -> NoReturn:
    """Raise an :class:`InputError` with one problem."""
    raise InputError(Problem(where, found, allowed=allowed, remedy=remedy))


class OutOfMemory(RuntimeError):
    """A training run that does not fit into memory.

    Args:
        micro_batch: Number of windows per forward pass of a process.
        peak_memory_mb: Peak memory of the process, in MiB.
        recomputation: Whether activations were recomputed in the backward pass.
    """

    def __init__(self, micro_batch: int, peak_memory_mb: float, *, recomputation: bool = False) -> None:
        self.micro_batch = micro_batch
        self.recomputation = recomputation
        self.peak_memory_mb = peak_memory_mb
        super().__init__(
            f"out of memory with {micro_batch} windows at once, after {peak_memory_mb:.0f} MiB;"
            " reduce micro_batch or enable gradient_checkpointing"
        )


class DiskFull(RuntimeError):
    """A full disk; the message names the path that cannot be written."""


@contextmanager
def map_disk_full(place: Path) -> Iterator[None]:
    """Convert errors that a full disk causes within this context to :class:`DiskFull`.

    Args:
        place: The file or folder being written.

    Raises:
        DiskFull: If an exception or one of its causes reports a full disk or an exceeded quota.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not _is_disk_full_error(cause):
            cause = cause.__context__  # torch reports the OS error only there
        if cause is None:
            raise
        found = f"{place} cannot be written: {os.strerror(errno.ENOSPC)}"
        raise DiskFull(f"{found}; free some space and resume") from None


def _is_disk_full_error(error: BaseException) -> bool:
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
