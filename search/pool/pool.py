"""The worker pool: Ray Train worker groups that run while trials need them.

Starting a TorchTrainer takes seconds, starting a job on a running one takes milliseconds. Each group is one
TorchTrainer whose training function takes jobs from the queue. If a worker process dies, only its job fails: the group
is restarted and takes further jobs. All trainers run in the threads of one host actor, which owns them: killing it ends
every process of the pool, even in the middle of an epoch.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clinie_core.errors import Problem
from search.cluster.capacity import (
    Capacity,
    count_groups,
    describe_request,
    read_capacity,
    resolve_classes,
)
from search.config.resources import Resources
from search.pool.group_host import GroupHost, WorkerGroupFailed
from search.pool.group_lifecycle import PoolState
from search.pool.queue_actor import JobQueueActor, JobQueueHandle
from search.pool.usage import HourlyRate
from search.pool.worker import MakeProgram, WorkerSetup
from search.storage.home import compute_source_digest
from search.trials.job import FittingMemory

__all__ = ["WorkerPool"]

SHUTDOWN_SECONDS = 5.0
"""Time that idle workers have to end before their processes are killed."""
STATE_SECONDS = 0.3
"""Time between two requests for the state of the groups."""
MAX_GROUPS = 64
"""Number of groups on a cluster whose autoscaler's limits are unknown."""


class WorkerPool:
    """Worker groups and their job queue; a context manager that starts and ends them.

    Args:
        classes: Resource classes: processes, cores and GPUs of a group, and the number of groups.
        make_program: Makes the program that runs jobs; called once in each worker process with its device.
        folder: Folder or URL for Ray Train's own files.
        allow_text: Whether failure reasons may include the message of any error.
        fitting: Settings that fitted into memory in an earlier run of the search, by memory key.
        trials: Number of trials of the search at its start; None if unknown. The groups that are up never exceed the
            number of trials that have not ended; see :meth:`refresh`.
        wait_minutes: Time after which a search fails if no group is up for lack of nodes; None for no limit.
        where: Name of the space file, for messages.

    Raises:
        InputError: If the cluster can never hold a group.
    """

    def __init__(
        self,
        classes: Sequence[Resources],
        make_program: MakeProgram,
        folder: str | Path,
        *,
        allow_text: bool = False,
        fitting: Mapping[str, FittingMemory] | None = None,
        trials: int | None = None,
        wait_minutes: float | None = None,
        where: str = "",
    ) -> None:
        self._capacity = read_capacity()
        self.classes = resolve_classes(classes, self._capacity, where)
        """Resource classes with numbers of GPUs."""
        self._trials = trials
        self._wait_minutes = wait_minutes
        self._make_program = make_program
        self._folder = folder
        self._allow_text = allow_text
        self._fitting = dict(fitting or {})
        self._runs: list[ray.ObjectRef[Problem | None]] = []
        self._futures: list[Future[Problem | None]] = []
        self._reported: set[int] = set()
        self._host: Any = None
        self._groups = [
            own for own in self.classes for _ in range(_count_groups(own, self._capacity))
        ]  # the class of each group, by its number
        self.groups = len(self._groups)
        """Maximum number of worker groups of all classes."""
        self._state = PoolState()
        self._state_request: Future[PoolState] | None = None
        self._requested_at = 0.0
        self.queue: JobQueueHandle = None
        """Handle of the job queue; None before the pool is started."""
        self.queue_name = f"clinie-queue-{uuid.uuid4().hex}"
        """Name of the job queue's actor."""

    def __enter__(self) -> Self:
        # On the driver's node: the loss of another node ends workers only, never the queue or the host.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        classes = [own.name for own in self._groups]
        self.queue = JobQueueActor.options(name=self.queue_name, scheduling_strategy=here).remote(
            classes, self._fitting, self._trials, {own.name: _get_rate(own) for own in self.classes}
        )
        host = ray.remote(num_cpus=0, max_concurrency=self.groups + 1, scheduling_strategy=here)(GroupHost)
        self._host = host.remote(self._folder)
        for group, resources in enumerate(self._groups):
            setup = WorkerSetup(
                group=group,
                workers=resources.workers_per_trial,
                gpus=resources.gpu_share,
                sharded=resources.sharded,
                queue=self.queue,
                make_program=self._make_program,
                threads=max(1, int(resources.cpus_per_worker)),
                sources=compute_source_digest(),
                allow_text=self._allow_text,
            )
            self._runs.append(self._host.run.remote(setup, resources))
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
        minutes = self._wait_minutes
        if minutes and self._state.lonely_seconds > 60 * minutes:
            counts = ((own, self._limit(sum(own is other for other in self._groups))) for own in self.classes)
            request = " and ".join(describe_request(own, count) for own, count in counts)
            return (
                f"no node for {minutes:g} minutes (budget.wait_minutes): requested {request}; the cluster can provide"
                f" {self._capacity.describe()}"
            )
        drained = self._find_drained()
        if len(drained) < self.groups:
            return None
        return f"no worker group remains: {' | '.join(map(str, drained.values()))}"

    def refresh(self, unfinished: int) -> None:
        """Update the state of the groups in the background; called at every step of the search.

        Args:
            unfinished: Number of trials that have not ended.
        """
        if unfinished != self._trials:
            self._trials = unfinished
            self.queue.expect.remote(unfinished)
        request = self._state_request
        if request is not None and request.done():
            with suppress(ray.exceptions.RayActorError):  # a queue that is being restarted
                self._state = request.result()
            self._state_request = request = None
        if request is None and time.monotonic() - self._requested_at > STATE_SECONDS:
            self._requested_at = time.monotonic()
            self._state_request = self.queue.describe.remote().future()

    def may_start_trial(self, running: int) -> bool:
        """Return whether another trial may be drawn.

        As many trials run as groups are up. While groups are still to come, one more waits in the queue, so that a
        new group has a job at once. More would be drawn without knowledge of the results until then. With several
        resource classes, one more waits for each class, and still more while groups of another class are idle.

        Args:
            running: Number of trials that are drawn and have not ended.
        """
        up = sum(self._state.up.values())
        ahead = min(self._state.waiting, up) if len(self.classes) > 1 and self._state.idle else 0
        return running < min(self.groups, up + len(self.classes) + ahead)

    def describe_wait(self) -> str | None:
        """Return what the pool waits for, such as ``waiting for 2 GPUs, 0 of 8 groups up``; None if for no node."""
        unplaced = [(own, self._state.unplaced.get(own.name, 0)) for own in self.classes]
        if not any(count for _, count in unplaced):
            return None
        gpus = sum(count * own.gpus_per_trial for own, count in unplaced)
        cpus = sum(count * own.workers_per_trial * own.cpus_per_worker for own, count in unplaced if not own.gpu_share)
        amounts = [f"{n:g} {unit}{'s' * (n != 1)}" for n, unit in ((gpus, "GPU"), (cpus, "CPU")) if n]
        up, groups = sum(self._state.up.values()), self._limit(self.groups)
        return f"waiting for {' and '.join(amounts)}, {up} of {groups} groups up"

    def _limit(self, groups: int) -> int:
        """Return a number of groups, or that of the trials that have not ended if there are fewer trials."""
        return min(groups, self._trials or groups)

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
        """Return the groups that were drained, with the reason; :meth:`failure` reports those that raised an error."""
        ended = {group: future for group, future in enumerate(self._futures) if future.done()}
        reasons = {group: future.result() for group, future in ended.items() if future.exception() is None}
        return {group: reason for group, reason in reasons.items() if reason is not None}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ray.exceptions.RayActorError):  # a queue that is being restarted has no group to shut down
            ray.get(self.queue.close.remote())
        # Idle workers end by themselves; those in the middle of an epoch end with the host that owns them.
        ray.wait(self._runs, num_returns=len(self._runs), timeout=SHUTDOWN_SECONDS)
        ray.kill(self._host)
        ray.kill(self.queue)


def _get_rate(own: Resources) -> HourlyRate:
    return HourlyRate(own.gpus_per_trial, own.price_per_hour or 0.0)


def _count_groups(resources: Resources, capacity: Capacity) -> int:
    """Return the maximum number of groups of a class: the space's, else what the cluster can provide.

    It does not depend on the number of trials, to which commands may add.
    """
    known = count_groups(resources, capacity)
    return max(1, resources.concurrent_trials or (known if capacity.is_final else max(known, MAX_GROUPS)))


def _describe(error: BaseException) -> str:
    """Describe an error without its traceback: those of other processes could quote a note."""
    if isinstance(error, WorkerGroupFailed):
        return str(error)
    missing = re.search(r"No module named '[\w.]+'", str(error))
    remedy = f": {missing[0]}; install clinie on every node" if missing else ""
    return f"{type(error).__name__}{remedy}"
