"""The lifetime of worker groups: how many are needed, which are up, and which end because no trial is left.

Plain Python, without Ray and asyncio: the job queue asks and tells this module.

A group is asleep until it is needed. It then requests its resources, which makes an autoscaler start nodes, and is up
once its processes have joined the queue. It sleeps again if its node leaves or no trial is left for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["IDLE_SECONDS", "MAX_REQUESTED", "GroupLifecycle", "PoolState"]

MAX_REQUESTED = 8
"""Number of groups of a class that may request resources at once; more if more are up, as an autoscaler does."""
IDLE_SECONDS = 10.0
"""Time for which a group that is up waits for a job if there are several classes; the next trial may be of its class.
With one class it waits as long as trials are left."""


@dataclass(frozen=True)
class PoolState:
    """State of the worker groups.

    Args:
        limits: Maximum number of groups, by resource class.
        up: Number of groups that have joined the queue, by resource class.
        unplaced: Number of groups that wait for a node with their resources, by resource class.
        idle: Number of groups that are up and train no trial.
        waiting: Number of jobs that wait for a group.
        lonely_seconds: Seconds since the last group was up while at least one waits for a node; 0 if none does.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    up: Mapping[str, int] = field(default_factory=dict)
    unplaced: Mapping[str, int] = field(default_factory=dict)
    idle: int = 0
    waiting: int = 0
    lonely_seconds: float = 0.0


class GroupSet:
    """Set of groups that knows the number of its groups of each resource class.

    Args:
        classes: Resource class of each group, by its number.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._groups: dict[int, None] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[int]:
        return iter(self._groups)

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def add(self, group: int) -> None:
        """Add a group; no-op if it is in the set."""
        if group not in self._groups:
            self._groups[group] = None
            self._counts[self._classes[group]] += 1

    def discard(self, group: int) -> None:
        """Remove a group; no-op if it is not in the set."""
        if group in self._groups:
            del self._groups[group]
            self._counts[self._classes[group]] -= 1

    def count(self, class_name: str) -> int:
        """Return the number of groups of a resource class."""
        return self._counts[class_name]


class GroupLifecycle:
    """Counts of the groups in each state, and the decisions that follow from them.

    Args:
        classes: Resource class of each group, by its number.
        unfinished: Number of trials that have not ended; None if unknown, which means no limit.
        restarted: Whether the job queue was restarted, so that the state of each group is unknown until it calls.
    """

    def __init__(self, classes: Sequence[str], *, unfinished: int | None = None, restarted: bool = False) -> None:
        self._classes = tuple(classes)
        self.limits: Mapping[str, int] = Counter(classes)
        self.unfinished = unfinished
        self.unknown = set(range(len(classes))) if restarted else set()
        """Groups that have not called since the job queue was restarted."""
        self.up = GroupSet(self._classes)
        self.requested = GroupSet(self._classes)
        """Groups that request resources or start their processes."""
        self.unplaced = GroupSet(self._classes)
        """Groups among the requested ones that wait for a node."""
        self.drained = GroupSet(self._classes)
        self._lonely_since: float | None = None
        self._idle_since: dict[int, float] = {}

    def get_class(self, group: int) -> str:
        """Return the resource class of a group."""
        return self._classes[group]

    def count_wanted(self, class_name: str, jobs: Mapping[str, int]) -> int:
        """Return the number of groups of a class that should be up.

        Args:
            class_name: The resource class.
            jobs: Number of waiting and running jobs, by resource class.
        """
        limit = self.limits[class_name] - self.drained.count(class_name)
        needed = jobs.get(class_name, 0)
        if len(self.limits) == 1:
            # Each trial that has not ended will have a job of this class.
            needed = limit if self.unfinished is None else max(needed, self.unfinished)
        return min(limit, needed)

    def may_start(self, group: int, jobs: Mapping[str, int]) -> bool:
        """Return whether a group that is asleep should request its resources."""
        if group in self.drained or self.unknown:
            return False
        name = self._classes[group]
        requested, up = self.requested.count(name), self.up.count(name)
        return requested + up < self.count_wanted(name, jobs) and requested < max(MAX_REQUESTED, up)

    def is_idle(self, group: int, jobs: Mapping[str, int], now: float) -> bool:
        """Return whether a group that is up and has no job should end.

        With several classes, it ends at once only if each trial that has not ended has a job. Otherwise the next trial
        may be of its class, and it waits for :data:`IDLE_SECONDS`.

        Args:
            group: The group.
            jobs: Number of waiting and running jobs, by resource class.
            now: Seconds of a clock that never goes back.
        """
        if not self.is_surplus(group, jobs, up_only=True):
            self._idle_since.pop(group, None)
            return False
        since = self._idle_since.setdefault(group, now)
        is_drawn = self.unfinished is not None and sum(jobs.values()) >= self.unfinished
        return len(self.limits) == 1 or is_drawn or now - since >= IDLE_SECONDS

    def is_surplus(self, group: int, jobs: Mapping[str, int], *, up_only: bool) -> bool:
        """Return whether there are more groups of this group's class than needed.

        Args:
            group: The group.
            jobs: Number of waiting and running jobs, by resource class.
            up_only: Count only groups that are up, because those that are not end first.
        """
        name = self._classes[group]
        present = self.up.count(name) + (0 if up_only else self.requested.count(name))
        return present > self.count_wanted(name, jobs)

    def has_surplus(self, class_name: str, jobs: Mapping[str, int]) -> bool:
        """Return whether more groups of a class are up than needed; if not, none of them counts as idle any more."""
        has_surplus = self.up.count(class_name) > self.count_wanted(class_name, jobs)
        if self._idle_since and not has_surplus:
            self._idle_since = {g: since for g, since in self._idle_since.items() if self._classes[g] != class_name}
        return has_surplus

    def start(self, group: int) -> None:
        """Register that a group requests its resources."""
        self.unknown.discard(group)
        self.requested.add(group)

    def place(self, group: int, *, placed: bool) -> None:
        """Register whether a requested group has found a node."""
        self.unknown.discard(group)
        self.requested.add(group)
        self.unplaced.discard(group) if placed else self.unplaced.add(group)

    def join(self, group: int) -> None:
        """Register that a group is up."""
        self.leave(group)
        self.up.add(group)

    def leave(self, group: int) -> None:
        """Register that a group is asleep."""
        self.unknown.discard(group)
        for groups in (self.up, self.requested, self.unplaced):
            groups.discard(group)
        self._idle_since.pop(group, None)

    def describe(self, now: float, *, busy: int, waiting: int) -> PoolState:
        """Return the state of the groups.

        Args:
            now: Seconds of a clock that never goes back.
            busy: Number of groups that train a trial.
            waiting: Number of jobs that wait for a group.
        """
        if self.up or not self.unplaced:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
        return PoolState(
            dict(self.limits),
            {name: self.up.count(name) for name in self.limits},
            {name: self.unplaced.count(name) for name in self.limits},
            max(0, len(self.up) - busy),
            waiting,
            now - self._lonely_since if self._lonely_since is not None else 0.0,
        )
