"""The trials that are running and the first error of a search, shared by the searcher and the recorder."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from clinie_core.config import TrialConfig
from search.trials.retry import MAX_ACTOR_LOSSES

__all__ = ["RunningTrials", "stop_after_error"]


class RunningTrials:
    """Trials from their suggestion to their end, with their configurations."""

    def __init__(self) -> None:
        self._configs: dict[int, TrialConfig] = {}
        self._paused: dict[int, TrialConfig] = {}
        self._lost: list[int] = []
        self._losses: Counter[int] = Counter()
        self.error: Exception | None = None
        """First error of the search; None while it can continue."""

    def __len__(self) -> int:
        return len(self._configs)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the trials that Tune has or receives again."""
        return tuple(self._configs)

    @property
    def paused(self) -> tuple[int, ...]:
        """Numbers of the trials that a command has paused. They do not count as running."""
        return tuple(self._paused)

    def add(self, number: int, config: TrialConfig) -> None:
        """Add a trial that is suggested to Tune."""
        self._configs[number] = config

    def config(self, number: int) -> TrialConfig:
        """Return the configuration of a running or paused trial."""
        return self._configs[number] if number in self._configs else self._paused[number]

    def remove(self, number: int) -> None:
        """Remove a trial that has ended."""
        self._configs.pop(number, None)
        self._paused.pop(number, None)

    def pause(self, number: int) -> None:
        """Move a running trial to the paused ones."""
        self._paused[number] = self._configs.pop(number)

    def resume(self, number: int) -> None:
        """Move a paused trial to the running ones; it is suggested again."""
        self._configs[number] = self._paused.pop(number)
        self._lost.append(number)

    def suggest_again(self, number: int) -> None:
        """Suggest a running trial again whose job has ended without a fault."""
        self._lost.append(number)

    def mark_lost(self, number: int) -> bool:
        """Register that a trial has lost its Tune actor, before or after it started.

        Returns:
            Whether the trial is suggested again.
        """
        self._losses[number] += 1
        if self._losses[number] > MAX_ACTOR_LOSSES:
            return False
        self._lost.append(number)
        return True

    def pop_lost(self) -> int | None:
        """Return the number of the next trial to suggest again; None if there is none."""
        return self._lost.pop(0) if self._lost else None


class _HasRunningTrials(Protocol):
    running: RunningTrials


def stop_after_error(method: Callable[..., Any]) -> Callable[..., Any]:
    """Store the first error of a search and raise it again at each further call of a decorated method.

    Tune converts errors to text and may suggest another trial before it ends. After an error, nothing is suggested
    or recorded, and the trials can be resumed.
    """

    @functools.wraps(method)
    def call(self: _HasRunningTrials, *args: Any, **kwargs: Any) -> Any:
        if self.running.error is not None:
            raise self.running.error
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.running.error = error
            raise

    return call
