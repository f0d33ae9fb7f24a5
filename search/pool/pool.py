"""The warm pool: a number of Ray Train worker groups that live as long as the search.

Starting a TorchTrainer costs seconds, a job on a running one milliseconds. Each group is one
TorchTrainer whose training function takes jobs from the board. A dead worker fails its job only:
Ray Train restarts the group, which goes on taking jobs. All trainers run in the threads of one host
actor, which owns them: ending it ends every process of the pool, even in the middle of an epoch.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import ray.exceptions
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clinie_core.errors import fail
from search.config.space_file import Resources
from search.pool.queue import JobQueue, JobQueueHandle
from search.pool.worker import Program, WorkerSetup, run_worker
from search.storage.home import compute_source_digest
from search.trials.failure import failure_reason

__all__ = ["CLIENT_CPUS", "WorkerPool"]

CLIENT_CPUS = 0.01
"""What a trial client asks for; each group leaves room for it beside its own share."""
GROUP_RESTARTS = 3
"""So often a group may fail in a row without having asked for a job; one that has done so is always started again."""
GOODBYE_SECONDS = 5.0


class WorkerPool:
    """Worker groups and their job board; a context manager that starts and ends them.

    Args:
        resources: Processes, cores and GPUs of a group, and how many groups.
        make_program: Makes what runs the jobs, once in each worker process.
        folder: Where Ray Train keeps its own files; a folder or a URL.
        allow_text: Whether failure reasons may carry an error's own words.
    """

    def __init__(
        self, resources: Resources, make_program: Callable[[], Program], folder: str | Path, *, allow_text: bool = False
    ) -> None:
        self._resources = resources
        self._make_program = make_program
        self._folder = folder
        self._allow_text = allow_text
        self._runs: list[ray.ObjectRef[None]] = []
        self._ends: list[Future[None]] = []
        self._host: Any = None
        self.groups = resources.concurrent_trials or count_fitting_groups(resources)
        self.board: JobQueueHandle = None
        self.board_name = f"clinie-board-{uuid.uuid4().hex}"

    def __enter__(self) -> Self:
        # Beside the driver: a node that goes then takes workers with it, and never what holds them together.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.board = JobQueue.options(name=self.board_name, scheduling_strategy=here).remote(self.groups)
        host = ray.remote(num_cpus=0, max_concurrency=self.groups + 1, scheduling_strategy=here)(_PoolHost)
        self._host = host.remote()
        for group in range(self.groups):
            setup = WorkerSetup(
                group=group,
                workers=self._resources.workers_per_trial,
                board=self.board,
                make_program=self._make_program,
                threads=max(1, int(self._resources.cpus_per_worker)),
                sources=compute_source_digest(),
                allow_text=self._allow_text,
            )
            self._runs.append(self._host.run.remote(setup, self._resources, self._folder))
        self._ends = [run.future() for run in self._runs]
        return self

    def failure(self) -> str | None:
        """Why a group has ended for good; None while all are well."""
        for end in self._ends:  # asked at every step of the search, so without a call to Ray
            error = end.exception() if end.done() else None
            if error is not None:
                cause = getattr(error, "cause", None) or error
                return f"a worker group cannot go on: {_in_words(cause)}"
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ray.exceptions.RayActorError):  # a board that is just being started again has nobody to send home
            ray.get(self.board.close.remote())
        # An idle worker goes by itself; one in the middle of an epoch ends with the host that owns it.
        ray.wait(self._runs, num_returns=len(self._runs), timeout=GOODBYE_SECONDS)
        ray.kill(self._host)
        ray.kill(self.board)


def _in_words(error: BaseException) -> str:
    """What of an error may be shown: Ray's own hold the tracebacks of other processes, which could quote a note."""
    if isinstance(error, WorkerGroupFailed):
        return str(error)
    missing = re.search(r"No module named '[\w.]+'", str(error))
    remedy = f": {missing[0]}; install clinie on every node" if missing else ""
    return f"{type(error).__name__}{remedy}"


class WorkerGroupFailed(RuntimeError):
    """A worker group does not come as far as to ask for a job; the message says why, without document text."""


class _PoolHost:
    """The actor in whose threads the groups' trainers run."""

    def run(self, setup: WorkerSetup, resources: Resources, folder: str | Path) -> None:
        """Run one group until the board closes.

        Raises:
            WorkerGroupFailed: If the group cannot start.
        """
        for attempt in itertools.count():
            asked = ray.get(setup.board.request_count.remote(setup.group))
            try:
                _trainer(
                    setup,
                    resources,
                    RunConfig(
                        name=f"group-{setup.group}-{attempt}",
                        storage_path=str(folder),
                        failure_config=FailureConfig(max_failures=GROUP_RESTARTS),
                    ),
                ).fit()
            except WorkerGroupError as error:
                if ray.get(setup.board.request_count.remote(setup.group)) == asked:
                    failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
                    reasons = (failure_reason(failure, allow_text=setup.allow_text) for failure in failures)
                    raise WorkerGroupFailed(" | ".join(dict.fromkeys(reasons))) from None
            else:
                return


def _trainer(setup: WorkerSetup, resources: Resources, run_config: RunConfig) -> TorchTrainer:
    """What starts a group's processes, and again after a failure."""
    gpus = resources.gpus_per_worker
    share: dict[str, float] = {"CPU": max(CLIENT_CPUS, resources.cpus_per_worker - 2 * CLIENT_CPUS)}
    if gpus:
        share["GPU"] = gpus
    return TorchTrainer(
        run_worker,
        train_loop_config=setup,
        scaling_config=ScalingConfig(num_workers=setup.workers, use_gpu=gpus > 0, resources_per_worker=share),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=run_config,
    )


def count_fitting_groups(resources: Resources) -> int:
    """How many groups the cluster has room for.

    Raises:
        InputError: If it has no room for one.
    """
    total: dict[str, Any] = ray.cluster_resources()
    cpus, gpus = float(total.get("CPU", 0)), float(total.get("GPU", 0))
    groups = int(cpus // (resources.cpus_per_worker * resources.workers_per_trial))
    if resources.gpus_per_worker:
        groups = min(groups, int(gpus // (resources.gpus_per_worker * resources.workers_per_trial)))
    if groups < 1:
        fail(
            "resources",
            f"a trial needs {resources.workers_per_trial} x {resources.cpus_per_worker:g} CPU"
            f" and {resources.gpus_per_worker:g} GPU",
            allowed=f"at most the cluster's {cpus:g} CPU and {gpus:g} GPU",
            remedy="lower workers_per_trial, cpus_per_worker or gpus_per_worker",
        )
    return groups
