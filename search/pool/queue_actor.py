"""The Ray actor that makes the job queue available to all processes of a search."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from clinie_core.errors import Problem
from search.pool.job_queue import JobQueue
from search.pool.usage import HourlyRate
from search.trials.job import FittingMemory

__all__ = ["JobQueueActor", "JobQueueHandle"]

WATCH_SECONDS = 2.0
JobQueueHandle = Any  # Ray's actor handles have no static type


class _JobQueueActor(JobQueue):
    """Job queue that follows the state of the cluster's nodes.

    Ray restarts the actor if its process dies.

    Args:
        groups: Resource class of each worker group.
        fitting: Settings that fitted into memory in an earlier run of the search, by memory key.
        unfinished: Number of trials at the start of the search; None if unknown.
        rates: Use per hour of the groups of a resource class.
    """

    def __init__(
        self,
        groups: Sequence[str],
        fitting: Mapping[str, FittingMemory],
        unfinished: int | None,
        rates: Mapping[str, HourlyRate],
    ) -> None:
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(groups, restarted=restarted, fitting=fitting, unfinished=unfinished, rates=rates)
        self._watch: asyncio.Task[None] | None = None

    async def join(self, group: int, node: str, place: str, memory_kills: int) -> int:
        """Register a group that starts; see :meth:`JobQueue.join`."""
        self._watch = self._watch or asyncio.create_task(self._watch_nodes())
        return await super().join(group, node, place, memory_kills)

    async def _watch_nodes(self) -> None:
        while not self._closed:
            await asyncio.sleep(WATCH_SECONDS)
            nodes = await asyncio.to_thread(ray.nodes)
            await self.drop_lost_nodes({node["NodeID"] for node in nodes if node["Alive"]})
            await self.drain_nodes(await asyncio.to_thread(ray._private.state.state.get_draining_nodes))
            await self.release_idle_groups()

    # The host of the groups waits for an actor that is being restarted.
    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def await_start(self, group: int) -> bool:
        """Wait until a group is needed; see :meth:`JobQueue.await_start`."""
        return await super().await_start(group)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def is_needed(self, group: int) -> bool:
        """Return whether a group that waits for a node is still needed; see :meth:`JobQueue.is_needed`."""
        return await super().is_needed(group)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def place(self, group: int) -> None:
        """Register that a group has found nodes; see :meth:`JobQueue.place`."""
        await super().place(group)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def request_count(self, group: int) -> int:
        """Return how many jobs a group has requested; see :meth:`JobQueue.request_count`."""
        return await super().request_count(group)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def drain_reason(self, group: int) -> Problem | None:
        """Return why a group was drained; see :meth:`JobQueue.drain_reason`."""
        return await super().drain_reason(group)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def lose_for_memory(self, group: int, reason: str) -> None:
        """End the job of a group whose process was killed; see :meth:`JobQueue.lose_for_memory`."""
        await super().lose_for_memory(group, reason)


JobQueueActor = ray.remote(num_cpus=0, max_concurrency=10_000, max_restarts=-1)(_JobQueueActor)
