"""Withdrawal of a job that is being trained: a command has stopped or paused its trial.

The worker sets the check of its current job, and the program calls :func:`raise_if_withdrawn` before each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["JobWithdrawn", "check_withdrawal", "raise_if_withdrawn"]


class JobWithdrawn(Exception):
    """The job was withdrawn; the trial's state after its last finished epoch is saved."""


_is_withdrawn: ContextVar[Callable[[], bool]] = ContextVar("is_withdrawn", default=lambda: False)


@contextmanager
def check_withdrawal(is_withdrawn: Callable[[], bool]) -> Iterator[None]:
    """Set the check of a job within this context.

    Args:
        is_withdrawn: Returns whether the job was withdrawn. It is called before each training step and must be fast.
    """
    token = _is_withdrawn.set(is_withdrawn)
    try:
        yield
    finally:
        _is_withdrawn.reset(token)


def raise_if_withdrawn() -> None:
    """Raise an error if the current job was withdrawn.

    Raises:
        JobWithdrawn: If it was.
    """
    if _is_withdrawn.get()():
        raise JobWithdrawn
