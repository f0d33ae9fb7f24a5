"""The job queue: Tune actors submit jobs, worker groups take them. Plain asyncio, without Ray.

A trial runs in lockstep with Ray Tune: the worker reports an epoch and waits until the Tune actor requests the
next one, so a stopped trial computes nothing further.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

from clinie_core.errors import Problem
from search.pool.group_lifecycle import GroupLifecycle, PoolState
from search.pool.group_places import GroupPlaces
from search.pool.group_ranks import GroupRanks
from search.pool.job_channels import JobChannels
from search.pool.job_losses import JobLosses
from search.pool.job_table import JobTable
from search.pool.memory_settings import MemorySettings
from search.pool.usage import HourlyRate, UsageMeter
from search.pool.withdrawals import Withdrawals
from search.trials.job import FittingMemory, Job, JobEnded, MemoryShortage
from search.trials.result import EpochResult

__all__ = ["WITHDRAWN", "JobQueue"]

POOL_CLOSED = JobEnded("pool_closed", "the worker pool has closed")
WORKER_LOST = JobEnded("worker_lost", "a worker process died")
NODE_DRAINED = JobEnded("moved", "the node of a worker process was drained")
WITHDRAWN = JobEnded("withdrawn", "a command ended the trial's job")
KILLED_FOR_MEMORY = "a worker process was killed because the memory of its node or container was exhausted"


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
        self._jobs = JobTable()
        self._channels = JobChannels()
        self._asleep: defaultdict[str, dict[int, asyncio.Event]] = defaultdict(dict)
        """Groups that wait until they are needed, by resource class, with the events that end the waits."""
        self._idle: defaultdict[str, dict[int, asyncio.Event]] = defaultdict(dict)
        """Groups that are up and wait for a job, in the same way."""
        self._withdrawals = Withdrawals()
        self._ranks = GroupRanks()
        self._places = GroupPlaces()
        self._memory = MemorySettings(fitting)
        self._losses = JobLosses()
        self._closed = False

    async def await_start(self, group: int) -> bool:
        """Wait until a group is needed, as its host.

        Returns:
            False if the queue is closed or the group is drained: the group is never needed again.
        """
        self._groups.leave(group)
        if self._is_closed_to(group):
            return False
        if self._groups.may_start(group, self._jobs.counts):
            self._groups.start(group)  # it loses its job when it joins, where the cause is known
            return True
        self._lose_job(group, WORKER_LOST.reason)
        waiters = self._asleep[self._groups.get_class(group)]
        wakes = waiters[group] = asyncio.Event()
        self._wake()
        await wakes.wait()
        return not self._is_closed_to(group)

    async def is_needed(self, group: int) -> bool:
        """Return whether a group that waits for a node is still needed, as its host."""
        self._groups.place(group, placed=False)
        self._lose_job(group, WORKER_LOST.reason, count=False)
        is_needed = not self._is_closed_to(group) and not self._groups.is_surplus(
            group, self._jobs.counts, up_only=False
        )
        if not is_needed:
            self._groups.leave(group)
        self._wake()
        return is_needed

    async def place(self, group: int) -> None:
        """Register that a group has found nodes, as its host."""
        self._groups.place(group, placed=True)

    async def expect(self, unfinished: int) -> None:
        """Set the number of trials that have not ended."""
        self._groups.unfinished = unfinished
        self._wake()

    async def describe(self) -> PoolState:
        """Return the state of the groups."""
        return self._groups.describe(time.monotonic(), busy=len(self._jobs.running), waiting=len(self._jobs.waiting))

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
        killed = self._places.was_killed_for_memory(group, node, memory_kills)
        self._lose_job(group, KILLED_FOR_MEMORY if killed else WORKER_LOST.reason, for_memory=killed)
        self._places.set_first(group, node, place)
        self._groups.join(group)
        self._leaving.discard(group)
        generation = self._ranks.restart(group)
        earlier = self._idle[self._groups.get_class(group)].get(group)
        if earlier is not None:
            earlier.set()
        self._wake()
        return generation

    async def drop_lost_nodes(self, alive: Container[str]) -> None:
        """End the jobs of groups with a process on a lost node, since these groups may wait long for another node.

        Args:
            alive: Identifiers of the nodes that are alive.
        """
        lost = [group for group in self._groups.up if not self._places.is_within(group, alive)]
        for group in lost:
            self._lose_job(group, WORKER_LOST.reason, count=False)  # the group may restart on another node
            self._groups.leave(group)
        if lost:
            self._wake()

    async def drain_nodes(self, draining: Container[str]) -> None:
        """Move trials from nodes that are being drained, such as spot nodes: each ends its epoch and saves its state.

        Args:
            draining: Identifiers of the nodes that will end soon.
        """
        leaving = {group for group in self._groups.up if self._places.is_on(group, draining)}
        if leaving != self._leaving:
            self._leaving = leaving
            self._wake()

    async def lose_for_memory(self, group: int, reason: str) -> None:
        """End the job of a group whose process was killed for lack of memory.

        Args:
            group: Number of the group.
            reason: One line without document text.
        """
        self._lose_job(group, reason, for_memory=True)
        self._wake()

    def _lose_job(self, group: int, reason: str, *, for_memory: bool = False, count: bool = True) -> None:
        """End the job that a group holds, if there is one."""
        job = self._jobs.stop(group)
        if job is None:
            return
        self._withdrawals.remove(job.id)
        self._usage.stop(group, time.monotonic())
        ended = JobEnded("worker_lost", reason)
        if for_memory:
            ended = JobEnded("out_of_memory", reason, MemoryShortage(job.micro_batch, None, job.recomputation))
        elif group in self._leaving:
            ended = NODE_DRAINED
        elif count:
            self._count_loss(group, job, reason)
        self._channels.send(job.id, ended)

    def _count_loss(self, group: int, job: Job, reason: str) -> None:
        if self._losses.add(group, job.number, reason, self._places.describe(group)):
            self._groups.drained.add(group)

    def _wake(self) -> None:
        """End the waits that are over: start groups that are needed, and let idle ones take a job or end."""
        for name in self._groups.limits:
            asleep, idle = self._asleep[name], self._idle[name]
            for group in list(asleep):
                if not self._is_closed_to(group):
                    if not self._groups.may_start(group, self._jobs.counts):
                        if self._closed or self._losses.drained:
                            continue
                        break  # no other group of this class may start either
                    self._groups.start(group)
                asleep.pop(group).set()
            self._wake_idle(name, idle)

    def _wake_idle(self, name: str, idle: Mapping[int, asyncio.Event]) -> None:
        """Wake the idle groups of a class that end, and as many as there are jobs for them."""
        waiting = self._jobs.waiting_counts[name]
        may_end = (
            self._closed or self._leaving or self._losses.drained or self._groups.has_surplus(name, self._jobs.counts)
        )
        if not waiting and not may_end:
            return
        for group, wakes in idle.items():
            if wakes.is_set():  # it takes a job that another call has added
                waiting -= 1
            elif waiting > 0 and self._has_job(group):
                wakes.set()
                waiting -= 1
            elif may_end and self._is_done(group):
                wakes.set()
            if waiting <= 0 and not may_end:
                return

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
        self._ranks.count_request(group)
        waiters, wakes = self._idle[self._groups.get_class(group)], asyncio.Event()
        while True:
            if not self._ranks.is_current(group, generation):
                return None
            is_done = self._is_done(group)
            if is_done or self._has_job(group):
                break
            waiters[group] = wakes
            try:
                await wakes.wait()
            finally:
                wakes.clear()
                if waiters.get(group) is wakes:
                    del waiters[group]
        job = None if is_done else self._assign(group)
        if job is None:
            self._groups.leave(group)
            self._wake()
        self._ranks.pass_on(group, generation, workers, job)
        return job

    def _is_done(self, group: int) -> bool:
        """Return whether an idle group ends."""
        if self._is_closed_to(group) or group in self._leaving:
            return True
        if self._has_job(group):
            return False
        return self._groups.is_idle(group, self._jobs.counts, time.monotonic())

    async def release_idle_groups(self) -> None:
        """Let groups end that have waited for a job long enough; called from time to time."""
        self._wake()

    def _is_closed_to(self, group: int) -> bool:
        return self._closed or group in self._losses.drained

    def _has_job(self, group: int) -> bool:
        return next(self._find_jobs(group), None) is not None

    def _find_jobs(self, group: int) -> Iterator[Job]:
        """Yield the waiting jobs for a group.

        They do not include jobs of trials that a group still trains, because a cancelled job ends late, nor of trials
        that this group has lost again and again, unless no other group is up or needed.
        """
        if self._groups.unknown:
            return
        name = self._groups.get_class(group)
        others = max(self._groups.up.count(name), self._groups.count_wanted(name, self._jobs.counts)) > 1
        lost = self._losses.list_excluded(group) if others else set()
        for job in self._jobs.waiting.values():
            if job.resources == name and job.number not in lost and not self._jobs.is_trained(job.number):
                yield job

    def _assign(self, group: int) -> Job:
        job = self._memory.reduce(self._ranks.choose(group, list(self._find_jobs(group))))
        self._jobs.start(job, group)
        self._usage.start(group, job.resources, job.number, time.monotonic())
        return job

    async def get_fitting_memory(self) -> dict[str, FittingMemory]:
        """Return the settings that fitted into memory after a shortage, by memory key."""
        return self._memory.as_dict()

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
        self._places.add(group, node)
        return await self._ranks.follow(group, generation, rank)

    async def request_count(self, group: int) -> int:
        """Return how many jobs a group has requested, as its host. A group that fails without one cannot start."""
        return self._ranks.get_requests(group)

    async def drain_reason(self, group: int) -> Problem | None:
        """Return why a group was drained; None if it was not."""
        return self._losses.drained.get(group)

    async def report(self, job_id: str, result: EpochResult) -> bool:
        """Report an epoch and wait until the Tune actor answers.

        Args:
            job_id: Identifier of the job.
            result: Results of the epoch.

        Returns:
            Whether to train another epoch. False at once for the last epoch and for a job that was cancelled.
        """
        group = self._jobs.find_group(job_id)
        if group is not None:
            job = self._jobs.running[group]
            self._losses.clear(group)
            self._memory.add(job)
            result = replace(result, metrics={**result.metrics, **self._usage.take(group, time.monotonic())})
        if not await self._channels.report(job_id, result):
            return False
        if job_id in self._withdrawals:
            self._channels.send(job_id, WITHDRAWN)
            return False
        if group in self._leaving:  # the trial's state is saved, and another group continues it
            self._channels.send(job_id, NODE_DRAINED)
            return False
        return True

    async def end(self, group: int, job_id: str, ended: JobEnded) -> None:
        """Register the end of a job.

        Args:
            group: Number of the group that trained it.
            job_id: Identifier of the job.
            ended: How it ended.
        """
        if self._jobs.find_group(job_id) == group and (job := self._jobs.stop(group)) is not None:
            self._withdrawals.remove(job_id)
            self._usage.stop(group, time.monotonic())
            if ended.cause == "worker_lost":
                self._count_loss(group, job, ended.reason)
            self._wake()
        self._channels.send(job_id, ended)

    async def submit(self, job: Job) -> EpochResult | JobEnded:
        """Submit a job and wait for its first epoch. Older jobs of the same trial are cancelled."""
        for older in self._jobs.list_jobs(job.number):
            await self.cancel(older.id)
        self._channels.open(job.id)
        if self._closed:
            self._channels.send(job.id, POOL_CLOSED)
        self._jobs.add(job)
        self._wake()
        return await self._channels.receive(job.id)

    async def next_report(self, job_id: str) -> EpochResult | JobEnded:
        """Let the worker train another epoch and wait for its results."""
        self._channels.permit(job_id)
        return await self._channels.receive(job_id)

    async def cancel(self, job_id: str) -> None:
        """Cancel a job: a waiting job is removed, a running job ends at its next report."""
        self._jobs.remove(job_id)
        self._channels.cancel(job_id)

    async def withdraw(self, number: int) -> None:
        """End the jobs of a trial: waiting ones at once, a running one before its next training step.

        Args:
            number: Number of the trial. Without a job of it, nothing happens.
        """
        for job in self._jobs.list_jobs(number):
            if job.id in self._jobs.waiting:
                self._jobs.remove(job.id)
                self._channels.send(job.id, WITHDRAWN)
            else:
                self._withdrawals.add(job.id)

    async def await_withdrawal(self, job_id: str) -> bool:
        """Wait until a running job is withdrawn or has ended, as rank 0 of its group.

        Returns:
            Whether it was withdrawn.
        """
        return self._jobs.find_group(job_id) is not None and await self._withdrawals.wait(job_id)

    async def close(self) -> None:
        """Shut down all worker groups and end all jobs."""
        self._closed = True
        self._wake()
        self._channels.send_to_all(POOL_CLOSED)
