"""Search for an earlier trial with an identical configuration."""

from __future__ import annotations

from collections.abc import Iterable

from clinie_core.config import TrialConfig
from search.ledger.records import TrialRecord

__all__ = ["EqualTrials"]


class EqualTrials:
    """The latest trial with each configuration."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._known: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """True if no trial was added."""
        return not self._known

    def add(self, records: Iterable[TrialRecord]) -> None:
        """Add trials; one that is known or has no configuration yet is ignored."""
        for record in records:
            if record.config is not None and record.number not in self._known:
                self._known.add(record.number)
                self._numbers.setdefault(record.config.digest(), record.number)

    def find(self, number: int, config: TrialConfig) -> int | None:
        """Return the number of another trial with a configuration; None if there is none.

        Args:
            number: Number of the trial with the configuration, which is added.
            config: Its configuration.
        """
        self._known.add(number)
        earlier = self._numbers.setdefault(config.digest(), number)
        return earlier if earlier != number else None

    def replace(self, number: int, config: TrialConfig) -> None:
        """Find this trial from now on instead of an earlier one without a result."""
        self._numbers[config.digest()] = number
