"""The worker pool: Ray Train worker groups that run until the search ends.

Starting a TorchTrainer takes seconds, starting a job on a running one takes milliseconds. Each group is one
TorchTrainer whose training function takes jobs from the queue. If a worker process dies, only its job fails:
Ray Train restarts the group, which then takes further jobs. All trainers run in the threads of one host actor,
which owns them: killing it ends every process of the pool, even in the middle of an epoch.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Mapping
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
from torch.distributed import is_nccl_available

from clinie_core.errors import Problem, fail
from search.cluster.devices import count_gpu_slots, get_cluster_gpus, resolve_resources
from search.cluster.memory_kills import find_memory_kill
from search.config.space_file import Resources
from search.pool.queue_actor import JobQueueActor, JobQueueHandle
from search.pool.worker import MakeProgram, WorkerSetup, run_worker
from search.storage.home import compute_source_digest
from search.trials.failure import failure_reason
from search.trials.job import FittingMemory

__all__ = ["ACTOR_CPUS", "WorkerPool"]

ACTOR_CPUS = 0.01
"""CPUs that a Tune actor reserves. Each group reserves a little less than its share, to leave these free."""
GROUP_RESTARTS = 3
"""Number of consecutive restarts of a group that has not requested a job. A group that has is always restarted."""
SHUTDOWN_SECONDS = 5.0
"""Time that idle workers have to end before their processes are killed."""


class WorkerPool:
    """Worker groups and their job queue; a context manager that starts and ends them.

    Args:
        resources: Processes, cores and GPUs of a group, and the number of groups.
        make_program: Makes the program that runs jobs; called once in each worker process with its device.
        folder: Folder or URL for Ray Train's own files.
        allow_text: Whether failure reasons may include the message of any error.
        fitting: Settings that fitted into memory in an earlier run of the search, by memory key.
    """

    def __init__(
        self,
        resources: Resources,
        make_program: MakeProgram,
        folder: str | Path,
        *,
        allow_text: bool = False,
        fitting: Mapping[str, FittingMemory] | None = None,
    ) -> None:
        self.resources = resources = resolve_resources(resources, get_cluster_gpus())
        """Resources of a group, with a number of GPUs."""
        self._make_program = make_program
        self._folder = folder
        self._allow_text = allow_text
        self._fitting = dict(fitting or {})
        self._runs: list[ray.ObjectRef[Problem | None]] = []
        self._futures: list[Future[Problem | None]] = []
        self._reported: set[int] = set()
        self._host: Any = None
        self.groups = resources.concurrent_trials or count_fitting_groups(resources)
        """Number of worker groups."""
        self.queue: JobQueueHandle = None
        """Handle of the job queue; None before the pool is started."""
        self.queue_name = f"clinie-queue-{uuid.uuid4().hex}"
        """Name of the job queue's actor."""

    def __enter__(self) -> Self:
        # On the driver's node: the loss of another node ends workers only, never the queue or the host.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = JobQueueActor.options(name=self.queue_name, scheduling_strategy=here).remote(
            self.groups, self._fitting
        )
        host = ray.remote(num_cpus=0, max_concurrency=self.groups + 1, scheduling_strategy=here)(_PoolHost)
        self._host = host.remote()
        resources = self.resources
        for group in range(self.groups):
            setup = WorkerSetup(
                group=group,
                workers=resources.workers_per_trial,
                gpus=float(resources.gpus_per_worker),
                queue=self.queue,
                make_program=self._make_program,
                threads=max(1, int(resources.cpus_per_worker)),
                sources=compute_source_digest(),
                allow_text=self._allow_text,
            )
            self._runs.append(self._host.run.remote(setup, resources, self._folder))
        self._futures = [run.future() for run in self._runs]
        return self

    def failure(self) -> str | None:
        """Return the reason why the pool cannot run: a group cannot start, or all groups were drained.

        Returns:
            None if the pool works.
        """
        for future in self._futures:  # called at every step of the search: a future needs no call to Ray
            error = future.exception() if future.done() else None
            if error is not None:
                cause = getattr(error, "cause", None) or error
                return f"a worker group cannot run: {_describe(cause)}"
        drained = self._find_drained()
        if len(drained) < self.groups:
            return None
        return f"no worker group remains: {' | '.join(map(str, drained.values()))}"

    def take_warnings(self) -> list[Problem]:
        """Return, once, why groups were drained; the search continues with the other groups."""
        new = {group: drained for group, drained in self._find_drained().items() if group not in self._reported}
        self._reported.update(new)
        return list(new.values())

    def get_fitting_memory(self) -> dict[str, FittingMemory]:
        """Return the settings that fitted into memory after a shortage, by memory key."""
        with suppress(ray.exceptions.RayActorError):  # a queue that is being restarted remembers the earlier runs only
            self._fitting |= ray.get(self.queue.get_fitting_memory.remote())
        return dict(self._fitting)

    def _find_drained(self) -> dict[int, Problem]:
        """Return the groups that were drained, with the reason."""
        ended = {group: future.result() for group, future in enumerate(self._futures) if future.done()}
        return {group: reason for group, reason in ended.items() if reason is not None}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ray.exceptions.RayActorError):  # a queue that is being restarted has no group to shut down
            ray.get(self.queue.close.remote())
        # Idle workers end by themselves; those in the middle of an epoch end with the host that owns them.
        ray.wait(self._runs, num_returns=len(self._runs), timeout=SHUTDOWN_SECONDS)
        ray.kill(self._host)
        ray.kill(self.queue)


def _describe(error: BaseException) -> str:
    """Describe an error without its traceback: those of other processes could quote a note."""
    if isinstance(error, WorkerGroupFailed):
        return str(error)
    missing = re.search(r"No module named '[\w.]+'", str(error))
    remedy = f": {missing[0]}; install clinie on every node" if missing else ""
    return f"{type(error).__name__}{remedy}"


class WorkerGroupFailed(RuntimeError):
    """A worker group failed before it requested a job. The message holds no document text."""


class _PoolHost:
    """Actor whose threads run the trainers of all groups."""

    def run(self, setup: WorkerSetup, resources: Resources, folder: str | Path) -> Problem | None:
        """Run one group until the queue is closed or the group is drained.

        Returns:
            Why the group was drained; None if it was not.

        Raises:
            WorkerGroupFailed: If the group cannot start.
        """
        failures = 0  # since the last job
        for attempt in itertools.count():
            requests = ray.get(setup.queue.request_count.remote(setup.group))
            try:
                _make_trainer(
                    setup,
                    resources,
                    RunConfig(
                        name=f"group-{setup.group}-{attempt}",
                        storage_path=str(folder),
                        # Restarts are made here, because Ray Train does not show why it restarts a group.
                        failure_config=FailureConfig(max_failures=0),
                    ),
                ).fit()
            except WorkerGroupError as error:
                causes = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
                killed = find_memory_kill(causes)
                if killed is not None:
                    ray.get(setup.queue.lose_for_memory.remote(setup.group, killed))
                idle = ray.get(setup.queue.request_count.remote(setup.group)) == requests
                failures = failures + 1 if idle else 0
                if failures > GROUP_RESTARTS:
                    reasons = (failure_reason(cause, allow_text=setup.allow_text) for cause in causes)
                    raise WorkerGroupFailed(" | ".join(dict.fromkeys(reasons))) from None
            else:
                return ray.get(setup.queue.drain_reason.remote(setup.group))  # type: ignore[no-any-return]
        raise AssertionError("the loop has no end")


def _make_trainer(setup: WorkerSetup, resources: Resources, run_config: RunConfig) -> TorchTrainer:
    """Make the trainer that starts a group's processes and restarts them after a failure."""
    gpus = float(resources.gpus_per_worker)
    share: dict[str, float] = {"CPU": max(ACTOR_CPUS, resources.cpus_per_worker - 2 * ACTOR_CPUS)}
    if gpus:
        share["GPU"] = gpus
    return TorchTrainer(
        run_worker,
        train_loop_config=setup,
        scaling_config=ScalingConfig(num_workers=setup.workers, use_gpu=gpus > 0, resources_per_worker=share),
        torch_config=TorchConfig(backend="nccl" if gpus and is_nccl_available() else "gloo"),
        run_config=run_config,
    )


def count_fitting_groups(resources: Resources) -> int:
    """Return the number of worker groups that fit on the cluster.

    Raises:
        InputError: If no group fits.
    """
    total: dict[str, Any] = ray.cluster_resources()
    cpus, gpus = float(total.get("CPU", 0)), float(total.get("GPU", 0))
    share = float(resources.gpus_per_worker)
    groups = int(cpus // (resources.cpus_per_worker * resources.workers_per_trial))
    if share:
        groups = min(groups, count_gpu_slots(gpus, share) // resources.workers_per_trial)
    if groups < 1:
        fail(
            "resources",
            f"a trial needs {resources.workers_per_trial} x {resources.cpus_per_worker:g} CPU and {share:g} GPU",
            allowed=f"at most the cluster's {cpus:g} CPU and {gpus:g} GPU",
            remedy="lower workers_per_trial, cpus_per_worker or gpus_per_worker",
        )
    return groups
