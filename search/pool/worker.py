"""The warm worker: a Ray Train worker that takes job after job and keeps what trials share.

It runs inside a TorchTrainer, so Ray Train owns the process, its GPU and its process group. What it
does with a job is a function that the pool is given; this module only takes jobs and answers for
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.collective import broadcast_from_rank_zero

from clinie_core.errors import DiskFull, OutOfMemory, fail
from search.pool.queue import Job, JobEnded, JobQueueHandle, MemoryShortage
from search.storage.home import compute_source_digest
from search.trials.failure import failure_reason

__all__ = ["OnReport", "Program", "WorkerSetup", "run_worker"]

OnReport = Callable[[dict[str, Any]], bool]
Program = Callable[[Job, OnReport], None]
"""Runs a job; hands each epoch's result to the second argument and ends when that says False."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker group is told when it starts.

    Args:
        group: Number of the group.
        workers: Processes in it.
        board: Where it takes jobs.
        make_program: Called once in each process; makes what runs the jobs.
        threads: Threads a process computes with.
        sources: Digest of the driver's clinie sources.
        allow_text: Whether failure reasons may carry an error's own words.
    """

    group: int
    workers: int
    board: JobQueueHandle
    make_program: Callable[[], Program]
    threads: int
    sources: str
    allow_text: bool


def run_worker(setup: WorkerSetup) -> None:
    """Take jobs until the board closes; the training function of a group's TorchTrainer.

    Raises:
        InputError: If this process runs other sources than the driver.
        Exception: In a group of several processes whatever a job raised, since a process group in
            which one process has left a collective cannot be trusted; Ray Train then restarts it.
    """
    if compute_source_digest() != setup.sources:
        node = ray.util.get_node_ip_address()
        fail(f"node {node}", "other sources of clinie than the search's own", remedy="install the same on every node")
    import torch

    torch.set_num_threads(setup.threads)
    rank = ray.train.get_context().get_world_rank()
    board = setup.board
    program = setup.make_program()
    group = setup.group
    node = ray.get_runtime_context().get_node_id()
    life: int = broadcast_from_rank_zero(ray.get(board.join.remote(group, node)) if rank == 0 else 0)
    while True:
        if rank == 0:
            call = board.take.remote(group, life, setup.workers)
        else:
            call = board.follow.remote(group, life, rank, node)
        job: Job | None = ray.get(call)
        if job is None:
            return
        ended = JobEnded(None)
        try:
            program(job, lambda result, id_=job.id: bool(ray.get(board.report.remote(id_, result))))  # type: ignore[misc]
        except ray.exceptions.RayActorError:
            raise  # the board is gone and with it what this group was; Ray Train starts the group again
        except OutOfMemory as error:
            ended = JobEnded(str(error), shortage=MemoryShortage(error.micro_batch, error.peak_memory_mb))
        except DiskFull as error:
            ended = JobEnded(str(error), no_space=True)
        except Exception as error:
            ended = JobEnded(failure_reason(error, allow_text=setup.allow_text))
        if ended.reason is not None and setup.workers > 1:
            ray.get(board.end.remote(group, job.id, ended))
            os._exit(1)  # Ray Train restarts the group; a traceback in its logs could quote a note
        if rank == 0:
            ray.get(board.end.remote(group, job.id, ended))
