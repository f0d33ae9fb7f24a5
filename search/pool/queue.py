"""The job board: where trial clients leave jobs and warm worker groups take them.

It is one asynchronous Ray actor that only passes messages. A trial runs in lockstep with Tune: the
worker reports an epoch and waits until the trial's client asks for the next one, so that a stopped
trial computes nothing further. Each call costs about a millisecond, so an exchange is one call where it can be.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import asyncio
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

__all__ = ["CLOSED", "Job", "JobEnded", "JobQueue", "JobQueueHandle", "MemoryShortage", "Report"]

CLOSED = "the worker pool has closed"
LOST = "a worker process died"
WATCH_SECONDS = 2.0
JobQueueHandle = Any  # Ray's actor handles have no static type


@dataclass(frozen=True)
class Job:
    """One run of one trial, from the start or from its last checkpoint.

    Args:
        id: Unlike any other job's; a retried trial is a new job.
        number: The trial's number.
        config: The trial's configuration as JSON.
        folder: Where its checkpoints go.
        backbone: What the worker should already hold, to prefer that worker.
        micro_batch: Windows that a process computes at once where its own choice did not fit into memory.
    """

    id: str
    number: int
    config: str
    folder: Path | None = None
    backbone: str = ""
    micro_batch: int | None = None


@dataclass(frozen=True)
class Report:
    """What a trial reports after an epoch, as a Tune result; ``finished`` in it says that no other follows."""

    result: dict[str, Any]

    @property
    def last(self) -> bool:
        """Whether the job is over with this."""
        return bool(self.result.get("finished"))


@dataclass(frozen=True)
class MemoryShortage:
    """Memory was too short: how many windows a process computed at once, and the most that it held, in MiB."""

    micro_batch: int
    peak_memory_mb: float


@dataclass(frozen=True)
class JobEnded:
    """A job is over: by itself (``reason`` None), or because of a failure that ``reason`` names.

    Args:
        reason: Why, without document text.
        lost: The worker died or its node went, which may have nothing to do with the trial.
        shortage: Memory was too short.
        no_space: A disk is full, which is not the trial's fault.
    """

    reason: str | None
    lost: bool = False
    shortage: MemoryShortage | None = None
    no_space: bool = False


@dataclass
class _JobChannel:
    """What the board knows of one job."""

    reports: asyncio.Queue[Report | JobEnded] = field(default_factory=asyncio.Queue)
    go_on: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)


class _JobQueue:
    """See the module; workers and their host call the methods up to ``end``, trial clients those behind it.

    Args:
        groups: How many worker groups there are. A board that Ray has started again knows nothing of the jobs that
            they hold, so it gives out none until each group has joined again: two must never train one trial.
    """

    def __init__(self, groups: int) -> None:
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._missing = set(range(groups)) if again else set()
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._desks: dict[str, _JobChannel] = {}
        self._changed = asyncio.Condition()
        self._held: dict[int, Job] = {}  # what each group works on
        self._lives: defaultdict[int, int] = defaultdict(int)  # how often a group has started
        self._asked: defaultdict[int, int] = defaultdict(int)  # how often a group has asked for a job
        self._followers: defaultdict[tuple[int, int, int], asyncio.Queue[Job | None]] = defaultdict(asyncio.Queue)
        self._backbones: defaultdict[int, set[str]] = defaultdict(set)
        self._closed = False
        self._nodes: defaultdict[int, set[str]] = defaultdict(set)  # where each group's processes are
        self._watch: asyncio.Task[None] | None = None

    async def join(self, group: int, node: str) -> int:
        """A group's rank 0 starts; a job that an earlier life of the group held is lost with it.

        Args:
            group: Its number.
            node: The id of the node that it is on.

        Returns:
            Which life of the group this is. A call that a dead process left waiting belongs to an
            earlier one and gets nothing any more.
        """
        self._watch = self._watch or asyncio.create_task(self._watch_nodes())
        self._lose(group)
        self._backbones.pop(group, None)
        self._nodes[group] = {node}
        async with self._changed:
            self._missing.discard(group)
            self._lives[group] += 1
            self._changed.notify_all()
        return self._lives[group]

    def _lose(self, group: int) -> None:
        lost = self._held.pop(group, None)
        if lost is not None and lost.id in self._desks:
            self._desks[lost.id].reports.put_nowait(JobEnded(LOST, lost=True))

    async def _watch_nodes(self) -> None:
        """Give the jobs of a node that is gone to others: its groups may wait long for another node to join from."""
        while not self._closed:
            await asyncio.sleep(WATCH_SECONDS)
            nodes = await asyncio.to_thread(ray.nodes)
            alive = {node["NodeID"] for node in nodes if node["Alive"]}
            for group in list(self._held):
                if not self._nodes[group] <= alive:
                    self._lose(group)
                    async with self._changed:
                        self._changed.notify_all()

    async def take(self, group: int, life: int, workers: int) -> Job | None:
        """Wait for a job, for rank 0 of a group; None when the board closes."""
        self._asked[group] += 1
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._takeable() or self._lives[group] != life)
            if self._lives[group] != life:
                return None
            job = None
            if not self._closed:
                held, takeable = self._backbones[group], self._takeable()
                job = next((j for j in takeable if j.backbone in held), takeable[0])
                del self._waiting[job.id]
                held.add(job.backbone)
                self._held[group] = job
        for rank in range(1, workers):
            self._followers[group, life, rank].put_nowait(job)
        return job

    # A board that is just being started again is waited for.
    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def request_count(self, group: int) -> int:
        """How often a group has asked for a job: whether it comes as far as that between two failures."""
        return self._asked[group]

    def _takeable(self) -> list[Job]:
        """Jobs that wait, but for those of a trial that a group still works on: a job that was cancelled ends late."""
        busy = {job.number for job in self._held.values()}
        return [] if self._missing else [job for job in self._waiting.values() if job.number not in busy]

    async def follow(self, group: int, life: int, rank: int, node: str) -> Job | None:
        """Wait for the job that the group's rank 0 took, for its other ranks, which may be on other nodes."""
        self._nodes[group].add(node)
        return await self._followers[group, life, rank].get()

    async def report(self, job_id: str, result: dict[str, Any]) -> bool:
        """Hand in an epoch and wait; True to go on, False to stop. The last epoch is not waited for."""
        desk = self._desks.get(job_id)
        if desk is None:  # cancelled in the middle of an epoch
            return False
        report = Report(result)
        desk.reports.put_nowait(report)
        return False if report.last else await desk.go_on.get()

    async def end(self, group: int, job_id: str, ended: JobEnded) -> None:
        """A worker is done with a job."""
        if group in self._held and self._held[group].id == job_id:
            del self._held[group]
            async with self._changed:
                self._changed.notify_all()
        if job_id in self._desks:
            self._desks[job_id].reports.put_nowait(ended)

    async def submit(self, job: Job) -> Report | JobEnded:
        """Leave a job for the next free group and wait for its first epoch; an older one of the trial is cancelled."""
        for older in [other for other in (*self._waiting.values(), *self._held.values()) if other.number == job.number]:
            await self.cancel(older.id)
        desk = self._desks[job.id] = _JobChannel()
        if self._closed:
            desk.reports.put_nowait(JobEnded(CLOSED))
        async with self._changed:
            self._waiting[job.id] = job
            self._changed.notify_all()
        return await self._receive(job.id, desk)

    async def next_report(self, job_id: str) -> Report | JobEnded:
        """Let the worker go on and wait for the job's next epoch."""
        desk = self._desks[job_id]
        desk.go_on.put_nowait(True)
        return await self._receive(job_id, desk)

    async def _receive(self, job_id: str, desk: _JobChannel) -> Report | JobEnded:
        message = await desk.reports.get()
        if isinstance(message, JobEnded) or message.last:
            self._desks.pop(job_id, None)
        return message

    async def cancel(self, job_id: str) -> None:
        """Stop a job: a waiting one is taken down, a running one ends at its next report."""
        self._waiting.pop(job_id, None)
        desk = self._desks.pop(job_id, None)
        if desk is not None:
            desk.go_on.put_nowait(False)

    async def close(self) -> None:
        """Send all groups home."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        for desk in self._desks.values():
            desk.reports.put_nowait(JobEnded(CLOSED))


JobQueue = ray.remote(num_cpus=0, max_concurrency=10_000, max_restarts=-1)(_JobQueue)
