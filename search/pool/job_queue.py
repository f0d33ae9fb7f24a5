"""The job queue: Tune actors submit jobs, worker groups take them. Plain asyncio, without Ray.

A trial runs in lockstep with Ray Tune: the worker reports an epoch and waits until the Tune actor requests the
next one, so a stopped trial computes nothing further.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clinie_core.errors import Problem
from search.pool.group_lifecycle import GroupLifecycle, PoolState
from search.pool.usage import HourlyRate, UsageMeter
from search.trials.job import FittingMemory, Job, JobEnded, MemoryShortage
from search.trials.result import EpochResult

__all__ = ["WITHDRAWN", "JobQueue"]

POOL_CLOSED = JobEnded("pool_closed", "the worker pool has closed")
WORKER_LOST = JobEnded("worker_lost", "a worker process died")
NODE_DRAINED = JobEnded("moved", "the node of a worker process was drained")
WITHDRAWN = JobEnded("withdrawn", "a command ended the trial's job")
KILLED_FOR_MEMORY = "a worker process was killed because the memory of its node or container was exhausted"
MAX_LOST_TRIALS = 3
"""Number of different trials that a group may lose without a finished epoch between them. Then it is drained."""
MAX_LOSSES = 2
"""Number of times that a group may lose the same trial in a row. Then the trial waits for another group."""


@dataclass
class _JobChannel:
    """Messages between the worker and the Tune actor of one job."""

    reports: asyncio.Queue[EpochResult | JobEnded] = field(default_factory=asyncio.Queue)
    permits: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    """Answers to reports: whether the worker trains another epoch."""


class JobQueue:
    """Queue of jobs for worker groups.

    The host of the groups calls the methods from :meth:`await_start` to :meth:`place`, workers those from :meth:`join`
    to :meth:`end`, Tune actors those from :meth:`submit` to :meth:`cancel`. Each process of a group is a rank; rank 0
    takes jobs on behalf of its group.

    Args:
        groups: Resource class of each worker group, by the group's number.
        restarted: Whether this queue replaces one that was lost. It does not know which jobs the groups hold, so it
            assigns no job before each group or its host has called: two groups must never train one trial.
        fitting: Settings that fitted into memory in an earlier run of the search, by memory key.
        unfinished: Number of trials that have not ended; None if unknown. No more groups than trials are started.
        rates: Use per hour of the groups of a resource class; a class without one is not measured.
    """

    def __init__(
        self,
        groups: Sequence[str],
        *,
        restarted: bool = False,
        fitting: Mapping[str, FittingMemory] | None = None,
        unfinished: int | None = None,
        rates: Mapping[str, HourlyRate] | None = None,
    ) -> None:
        self._usage = UsageMeter(rates or {})
        self._groups = GroupLifecycle(groups, unfinished=unfinished, restarted=restarted)
        self._leaving: set[int] = set()
        """Groups with a process on a node that is being drained."""
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._channels: dict[str, _JobChannel] = {}
        self._changed = asyncio.Condition()
        self._running: dict[int, Job] = {}  # by group
        self._generations: defaultdict[int, int] = defaultdict(int)
        self._requests: defaultdict[int, int] = defaultdict(int)
        self._followers: defaultdict[tuple[int, int, int], asyncio.Queue[Job | None]] = defaultdict(asyncio.Queue)
        self._backbones: defaultdict[int, set[str]] = defaultdict(set)
        self._nodes: defaultdict[int, set[str]] = defaultdict(set)
        self._places: dict[int, str] = {}
        self._memory_kills: dict[str, int] = {}  # by node
        self._fitting = dict(fitting or {})
        self._lost: defaultdict[int, Counter[int]] = defaultdict(Counter)
        """Losses of each trial since the last epoch of the group."""
        self._drained: dict[int, Problem] = {}
        self._withdrawn: set[str] = set()
        """Ids of running jobs that end before their next training step."""
        self._closed = False

    async def await_start(self, group: int) -> bool:
        """Wait until a group is needed, as its host.

        Returns:
            False if the queue is closed or the group is drained: the group is never needed again.
        """
        self._groups.leave(group)

        def is_over() -> bool:
            return self._is_closed_to(group) or self._groups.may_start(group, self._count_jobs())

        # A group that restarts at once loses its job when it joins, where the cause is known.
        if not is_over():
            self._lose_job(group, WORKER_LOST.reason)
            await self._notify()
        async with self._changed:
            await self._changed.wait_for(is_over)
            if self._is_closed_to(group):
                return False
            self._groups.start(group)
        return True

    async def is_needed(self, group: int) -> bool:
        """Return whether a group that waits for a node is still needed, as its host."""
        self._groups.place(group, placed=False)
        self._lose_job(group, WORKER_LOST.reason, count=False)
        if self._is_closed_to(group) or self._groups.is_surplus(group, self._count_jobs(), up_only=False):
            self._groups.leave(group)
            await self._notify()
            return False
        await self._notify()
        return True

    async def place(self, group: int) -> None:
        """Register that a group has found nodes, as its host."""
        self._groups.place(group, placed=True)

    async def expect(self, unfinished: int) -> None:
        """Set the number of trials that have not ended."""
        self._groups.unfinished = unfinished
        await self._notify()

    async def describe(self) -> PoolState:
        """Return the state of the groups."""
        return self._groups.describe(time.monotonic(), busy=len(self._running), waiting=len(self._waiting))

    def _count_jobs(self) -> Counter[str]:
        """Return the number of waiting and running jobs, by resource class."""
        return Counter(job.resources for job in (*self._waiting.values(), *self._running.values()))

    async def join(self, group: int, node: str, place: str, memory_kills: int) -> int:
        """Register a group that starts. A job that an earlier generation of the group holds is lost.

        Args:
            group: Number of the group.
            node: Identifier of the node of its rank 0.
            place: Node and GPU of its rank 0, for messages.
            memory_kills: Number of processes that the kernel of that node has killed for lack of memory. If it has
                increased, this is why the group has lost its job.

        Returns:
            The group's generation, from 1. Calls that a dead process left open belong to an earlier generation and
            receive no job.
        """
        before = self._memory_kills.get(node, memory_kills)
        killed = node in self._nodes[group] and memory_kills > before
        self._lose_job(group, KILLED_FOR_MEMORY if killed else WORKER_LOST.reason, for_memory=killed)
        self._memory_kills[node] = memory_kills
        self._backbones.pop(group, None)
        self._nodes[group] = {node}
        self._places[group] = place
        self._groups.join(group)
        self._leaving.discard(group)
        generation = self._generations[group] = self._generations[group] + 1
        await self._notify()
        return generation

    async def drop_lost_nodes(self, alive: Container[str]) -> None:
        """End the jobs of groups with a process on a lost node, since these groups may wait long for another node.

        Args:
            alive: Identifiers of the nodes that are alive.
        """
        lost = [group for group in self._groups.up if any(node not in alive for node in self._nodes[group])]
        for group in lost:
            self._lose_job(group, WORKER_LOST.reason, count=False)  # the group may restart on another node
            self._groups.leave(group)
        if lost:
            await self._notify()

    async def drain_nodes(self, draining: Container[str]) -> None:
        """Move trials from nodes that are being drained, such as spot nodes: each ends its epoch and saves its state.

        Args:
            draining: Identifiers of the nodes that will end soon.
        """
        leaving = {group for group in self._groups.up if any(node in draining for node in self._nodes[group])}
        if leaving != self._leaving:
            self._leaving = leaving
            await self._notify()

    async def lose_for_memory(self, group: int, reason: str) -> None:
        """End the job of a group whose process was killed for lack of memory.

        Args:
            group: Number of the group.
            reason: One line without document text.
        """
        self._lose_job(group, reason, for_memory=True)
        await self._notify()

    def _lose_job(self, group: int, reason: str, *, for_memory: bool = False, count: bool = True) -> None:
        """End the job that a group holds, if there is one."""
        job = self._running.pop(group, None)
        if job is None:
            return
        self._withdrawn.discard(job.id)
        self._usage.stop(group, time.monotonic())
        ended = JobEnded("worker_lost", reason)
        if for_memory:
            ended = JobEnded("out_of_memory", reason, MemoryShortage(job.micro_batch, None, job.recomputation))
        elif group in self._leaving:
            ended = NODE_DRAINED
        elif count:
            self._count_loss(group, job, reason)
        if job.id in self._channels:
            self._channels[job.id].reports.put_nowait(ended)

    def _count_loss(self, group: int, job: Job, reason: str) -> None:
        """Count a lost job; drain a group that loses one trial after another, because its GPU may be faulty."""
        lost = self._lost[group]
        lost[job.number] += 1
        if len(lost) >= MAX_LOST_TRIALS:
            found = f"worker group {group} lost {len(lost)} trials in a row, the last one because {reason}"
            remedy = "check the node; the group receives no further trial"
            self._drained[group] = Problem(self._places[group], found, remedy=remedy)
            self._groups.drained.add(group)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def take(self, group: int, generation: int, workers: int) -> Job | None:
        """Wait for a job, as rank 0 of a group.

        Args:
            group: Number of the group.
            generation: Its generation; see :meth:`join`.
            workers: Number of its processes. All of them receive the job.

        Returns:
            None if the group ends: the queue is closed, no trial is left for the group, its node is drained, the
            group is drained, or it has a newer generation.
        """
        self._requests[group] += 1
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._is_done(group) or self._available_jobs(group) or self._generations[group] != generation
            )
            if self._generations[group] != generation:
                return None
            job = None if self._is_done(group) else self._assign(group)
            if job is None:
                self._groups.leave(group)
        for rank in range(1, workers):
            self._followers[group, generation, rank].put_nowait(job)
        return job

    def _is_done(self, group: int) -> bool:
        """Return whether an idle group ends."""
        if self._is_closed_to(group) or group in self._leaving:
            return True
        if self._available_jobs(group):
            return False
        return self._groups.is_idle(group, self._count_jobs(), time.monotonic())

    async def release_idle_groups(self) -> None:
        """Let groups end that have waited for a job long enough; called from time to time."""
        await self._notify()

    def _is_closed_to(self, group: int) -> bool:
        return self._closed or group in self._drained

    def _available_jobs(self, group: int) -> list[Job]:
        """Return the waiting jobs for a group.

        They do not include jobs of trials that a group still trains, because a cancelled job ends late, nor of trials
        that this group has lost again and again, unless no other group remains.
        """
        if self._groups.unknown:
            return []
        name = self._groups.get_class(group)
        others = self._groups.limits[name] - self._groups.count(self._groups.drained, name) > 1
        lost = {number for number, times in self._lost[group].items() if others and times >= MAX_LOSSES}
        excluded = lost.union(job.number for job in self._running.values())
        return [job for job in self._waiting.values() if job.resources == name and job.number not in excluded]

    def _assign(self, group: int) -> Job:
        loaded, available = self._backbones[group], self._available_jobs(group)
        job = next((j for j in available if j.backbone in loaded), available[0])
        del self._waiting[job.id]
        loaded.add(job.backbone)
        job = self._running[group] = self._reduce_memory(job)
        self._usage.start(group, job.resources, job.number, time.monotonic())
        return job

    def _reduce_memory(self, job: Job) -> Job:
        """Return a job with at most the memory use that fitted an earlier job of its key after a shortage."""
        known = self._fitting.get(job.memory_key)
        if known is None:
            return job
        return replace(
            job,
            micro_batch=min(known.micro_batch, job.micro_batch or known.micro_batch),
            recomputation=job.recomputation or known.recomputation,
        )

    async def get_fitting_memory(self) -> dict[str, FittingMemory]:
        """Return the settings that fitted into memory after a shortage, by memory key."""
        return dict(self._fitting)

    async def follow(self, group: int, generation: int, rank: int, node: str) -> Job | None:
        """Wait for the job that rank 0 takes, as another rank of the group.

        Args:
            group: Number of the group.
            generation: Its generation; see :meth:`join`.
            rank: Rank of the calling process.
            node: Identifier of its node.

        Returns:
            None if the queue is closed.
        """
        self._nodes[group].add(node)
        return await self._followers[group, generation, rank].get()

    async def request_count(self, group: int) -> int:
        """Return how many jobs a group has requested, as its host. A group that fails without one cannot start."""
        return self._requests[group]

    async def drain_reason(self, group: int) -> Problem | None:
        """Return why a group was drained; None if it was not."""
        return self._drained.get(group)

    async def report(self, job_id: str, result: EpochResult) -> bool:
        """Report an epoch and wait until the Tune actor answers.

        Args:
            job_id: Identifier of the job.
            result: Results of the epoch.

        Returns:
            Whether to train another epoch. False at once for the last epoch and for a job that was cancelled.
        """
        group = next((group for group, job in self._running.items() if job.id == job_id), None)
        if group is not None:
            job = self._running[group]
            self._lost[group].clear()
            if job.reduced and job.memory_key and job.micro_batch is not None:
                self._fitting[job.memory_key] = FittingMemory(job.micro_batch, job.recomputation)
            result = replace(result, metrics={**result.metrics, **self._usage.take(group, time.monotonic())})
        channel = self._channels.get(job_id)
        if channel is None:
            return False
        channel.reports.put_nowait(result)
        if result.finished or not await channel.permits.get():
            return False
        if job_id in self._withdrawn:
            channel.reports.put_nowait(WITHDRAWN)
            return False
        if group in self._leaving:  # the trial's state is saved, and another group continues it
            channel.reports.put_nowait(NODE_DRAINED)
            return False
        return True

    async def end(self, group: int, job_id: str, ended: JobEnded) -> None:
        """Register the end of a job.

        Args:
            group: Number of the group that trained it.
            job_id: Identifier of the job.
            ended: How it ended.
        """
        if group in self._running and self._running[group].id == job_id:
            job = self._running.pop(group)
            self._withdrawn.discard(job_id)
            self._usage.stop(group, time.monotonic())
            if ended.cause == "worker_lost":
                self._count_loss(group, job, ended.reason)
            await self._notify()
        if job_id in self._channels:
            self._channels[job_id].reports.put_nowait(ended)

    async def submit(self, job: Job) -> EpochResult | JobEnded:
        """Submit a job and wait for its first epoch. Older jobs of the same trial are cancelled."""
        for older in [j for j in (*self._waiting.values(), *self._running.values()) if j.number == job.number]:
            await self.cancel(older.id)
        channel = self._channels[job.id] = _JobChannel()
        if self._closed:
            channel.reports.put_nowait(POOL_CLOSED)
        self._waiting[job.id] = job
        await self._notify()
        return await self._receive(job.id, channel)

    async def next_report(self, job_id: str) -> EpochResult | JobEnded:
        """Let the worker train another epoch and wait for its results."""
        channel = self._channels[job_id]
        channel.permits.put_nowait(True)
        return await self._receive(job_id, channel)

    async def _receive(self, job_id: str, channel: _JobChannel) -> EpochResult | JobEnded:
        message = await channel.reports.get()
        if isinstance(message, JobEnded) or message.finished:
            self._channels.pop(job_id, None)
        return message

    async def cancel(self, job_id: str) -> None:
        """Cancel a job: a waiting job is removed, a running job ends at its next report."""
        self._waiting.pop(job_id, None)
        channel = self._channels.pop(job_id, None)
        if channel is not None:
            channel.permits.put_nowait(False)

    async def withdraw(self, number: int) -> None:
        """End the jobs of a trial: waiting ones at once, a running one before its next training step.

        Args:
            number: Number of the trial. Without a job of it, nothing happens.
        """
        for job in [job for job in self._waiting.values() if job.number == number]:
            del self._waiting[job.id]
            if job.id in self._channels:
                self._channels[job.id].reports.put_nowait(WITHDRAWN)
        running = {job.id for job in self._running.values() if job.number == number}
        if running - self._withdrawn:
            self._withdrawn |= running
            await self._notify()

    async def await_withdrawal(self, job_id: str) -> bool:
        """Wait until a running job is withdrawn or has ended, as rank 0 of its group.

        Returns:
            Whether it was withdrawn.
        """

        def is_over() -> bool:
            return job_id in self._withdrawn or all(job.id != job_id for job in self._running.values())

        async with self._changed:
            await self._changed.wait_for(is_over)
        return job_id in self._withdrawn

    async def close(self) -> None:
        """Shut down all worker groups and end all jobs."""
        self._closed = True
        await self._notify()
        for channel in self._channels.values():
            channel.reports.put_nowait(POOL_CLOSED)
