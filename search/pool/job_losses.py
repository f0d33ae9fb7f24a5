"""Lost jobs of worker groups: which trials a group must not receive again, and which groups are drained.

Plain Python, without Ray and asyncio: the job queue asks and tells this module.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from clinie_core.errors import Problem

__all__ = ["MAX_LOSSES", "MAX_LOST_TRIALS", "JobLosses"]

MAX_LOST_TRIALS = 3
"""Number of different trials that a group may lose without a finished epoch between them. Then it is drained."""
MAX_LOSSES = 2
"""Number of times that a group may lose the same trial in a row. Then the trial waits for another group."""


class JobLosses:
    """Losses of each trial since the last finished epoch of a group."""

    def __init__(self) -> None:
        self._lost: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.drained: dict[int, Problem] = {}
        """Groups that receive no further trial, with the reason."""

    def add(self, group: int, number: int, reason: str, place: str) -> bool:
        """Count a lost job; drain a group that loses one trial after another, because its GPU may be faulty.

        Args:
            group: The group.
            number: Number of the trial.
            reason: Why the job was lost, without document text.
            place: Node and GPU of the group, for the message.

        Returns:
            Whether the group is drained.
        """
        lost = self._lost[group]
        lost[number] += 1
        if len(lost) < MAX_LOST_TRIALS:
            return False
        found = f"worker group {group} lost {len(lost)} trials in a row, the last one because {reason}"
        self.drained[group] = Problem(place, found, remedy="check the node; the group receives no further trial")
        return True

    def clear(self, group: int) -> None:
        """Forget the losses of a group that has finished an epoch."""
        self._lost.pop(group, None)

    def list_excluded(self, group: int) -> set[int]:
        """Return the numbers of the trials that the group has lost again and again."""
        lost = self._lost.get(group, Counter())
        return {number for number, times in lost.items() if times >= MAX_LOSSES}
