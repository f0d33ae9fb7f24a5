"""The worker process of the pool: runs one job after another and shares loaded models between them.

It runs inside a TorchTrainer, so Ray Train owns the process, its GPU and its process group. The pool supplies the
program that runs a job. This module takes the jobs and reports how they end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray
import ray.exceptions
import ray.train
from ray.train.collective import broadcast_from_rank_zero

from clinie_core.errors import DiskFull, OutOfMemory, fail
from clinie_core.garbage_collection import suspend_collection
from search.cluster.devices import describe_place, get_granted_device, is_usable, limit_memory
from search.cluster.memory_kills import count_memory_kills
from search.pool.job_queue import WITHDRAWN
from search.pool.queue_actor import JobQueueHandle
from search.pool.withdrawal import JobWithdrawn, check_withdrawal
from search.storage.home import compute_source_digest
from search.trials.failure import failure_reason
from search.trials.job import Job, JobEnded, MemoryShortage
from search.trials.result import EpochResult

if TYPE_CHECKING:
    import torch

__all__ = ["MakeProgram", "OnReport", "Program", "WorkerSetup", "run_worker"]

OnReport = Callable[[EpochResult], bool]
Program = Callable[[Job, OnReport], None]
"""Runs a job. Passes each epoch's results to the second argument and returns when that returns False."""
MakeProgram = Callable[["torch.device"], Program]
"""Makes the program for the device that was granted to the process."""


@dataclass(frozen=True)
class WorkerSetup:
    """Settings of a worker group.

    Args:
        group: Number of the group.
        workers: Number of its processes.
        gpus: GPUs of each process, possibly a fraction.
        sharded: Whether all jobs shard the model over the processes.
        queue: The job queue.
        make_program: Makes the program that runs jobs; called once in each process with its device.
        threads: Computation threads of a process.
        sources: Digest of the driver's clinie sources.
        allow_text: Whether failure reasons may include the message of any error.
    """

    group: int
    workers: int
    gpus: float
    sharded: bool
    queue: JobQueueHandle
    make_program: MakeProgram
    threads: int
    sources: str
    allow_text: bool


def run_worker(setup: WorkerSetup) -> None:
    """Run jobs until the queue is closed; the training function of a group's TorchTrainer.

    Two failures end the process, and Ray Train then restarts the group: a failed job in a group of several processes,
    because the other ranks may wait in a collective operation that this rank has left; and an error after which the
    device cannot be used any more, because every later job would fail.

    Raises:
        InputError: If this process runs other sources of clinie than the driver.
    """
    if compute_source_digest() != setup.sources:
        node = ray.util.get_node_ip_address()
        fail(f"node {node}", "other sources of clinie than the search's own", remedy="install the same on every node")
    import torch

    torch.set_num_threads(setup.threads)
    rank = ray.train.get_context().get_world_rank()
    queue = setup.queue
    device, place = get_granted_device(), describe_place()
    limit_memory(device, setup.gpus)
    with suspend_collection():
        program = setup.make_program(device)
    group = setup.group
    node = ray.get_runtime_context().get_node_id()
    generation: int = broadcast_from_rank_zero(
        ray.get(queue.join.remote(group, node, place, count_memory_kills())) if rank == 0 else 0
    )
    while True:
        if rank == 0:
            call = queue.take.remote(group, generation, setup.workers)
        else:
            call = queue.follow.remote(group, generation, rank, node)
        job: Job | None = ray.get(call)
        if job is None:
            return
        job = replace(job, sharded=setup.sharded)
        ended = JobEnded("finished")
        is_withdrawn = _watch_withdrawal(queue, job) if rank == 0 else lambda: False
        try:
            with check_withdrawal(is_withdrawn):
                program(job, lambda result, id_=job.id: bool(ray.get(queue.report.remote(id_, result))))  # type: ignore[misc]
        except ray.exceptions.RayActorError:
            raise  # the queue was lost, and with it this group's registration; Ray Train restarts the group
        except JobWithdrawn:
            ended = WITHDRAWN
        except OutOfMemory as error:
            shortage = MemoryShortage(error.micro_batch, error.peak_memory_mb, error.recomputation)
            ended = JobEnded("out_of_memory", str(error), shortage)
        except DiskFull as error:
            ended = JobEnded("disk_full", str(error))
        except Exception as error:
            reason = failure_reason(error, allow_text=setup.allow_text)
            ended = JobEnded("error", reason)
            if not is_usable(device):
                ended = JobEnded("worker_lost", f"{place} cannot be used any more after {reason}")
        if ended.cause == "worker_lost" or (ended.cause != "finished" and setup.workers > 1):
            ray.get(queue.end.remote(group, job.id, ended))
            os._exit(1)  # an exception would be logged by Ray Train, and its traceback could quote a note
        if rank == 0:
            ray.get(queue.end.remote(group, job.id, ended))


def _watch_withdrawal(queue: JobQueueHandle, job: Job) -> Callable[[], bool]:
    """Return a function that returns whether a job was withdrawn, without a call to the queue."""
    answer = queue.await_withdrawal.remote(job.id).future()
    return lambda: bool(answer.done() and answer.exception() is None and answer.result())
