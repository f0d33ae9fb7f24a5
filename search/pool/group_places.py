"""The nodes and GPUs of worker groups, and the processes that the kernel of a node has killed for lack of memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

__all__ = ["GroupPlaces"]


class GroupPlaces:
    """Places of the groups that have joined the job queue."""

    def __init__(self) -> None:
        self._nodes: defaultdict[int, set[str]] = defaultdict(set)
        self._descriptions: dict[int, str] = {}
        self._memory_kills: dict[str, int] = {}  # by node

    def describe(self, group: int) -> str:
        """Return the node and the GPU of a group's rank 0, for messages."""
        return self._descriptions[group]

    def was_killed_for_memory(self, group: int, node: str, memory_kills: int) -> bool:
        """Return whether the kernel of a group's node has killed processes since a group has joined there.

        Args:
            group: The group, which joins again.
            node: Identifier of the node on which it joins.
            memory_kills: Number of processes that the kernel of that node has killed for lack of memory.
        """
        before = self._memory_kills.get(node, memory_kills)
        self._memory_kills[node] = memory_kills
        return node in self._nodes[group] and memory_kills > before

    def set_first(self, group: int, node: str, description: str) -> None:
        """Set the place of a group's rank 0, which joins first."""
        self._nodes[group] = {node}
        self._descriptions[group] = description

    def add(self, group: int, node: str) -> None:
        """Add the node of another rank."""
        self._nodes[group].add(node)

    def is_on(self, group: int, nodes: Container[str]) -> bool:
        """Return whether a process of a group is on one of some nodes."""
        return any(node in nodes for node in self._nodes[group])

    def is_within(self, group: int, nodes: Container[str]) -> bool:
        """Return whether all processes of a group are on some nodes."""
        return all(node in nodes for node in self._nodes[group])
