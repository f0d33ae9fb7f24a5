"""The host of the worker groups: an actor whose threads start each group when it is needed, and again if it fails.

A group waits for its resources with a placement group of its own, so that an autoscaler starts nodes for it. The wait
is not left to Ray Train, which would need a controller process for each waiting group and could not be stopped.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.util.placement_group import placement_group, remove_placement_group

from clinie_core.errors import Problem
from search.cluster.memory_kills import find_memory_kill
from search.config.resources import Resources
from search.pool.worker import WorkerSetup, run_worker
from search.trials.failure import failure_reason

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

__all__ = ["GroupHost", "WorkerGroupFailed"]

GROUP_RESTARTS = 3
"""Number of consecutive restarts of a group that has not requested a job. A group that has is always restarted."""
PLACEMENT_SECONDS = 2.0
"""Time between two questions of a group that waits for a node whether it is still needed."""


class WorkerGroupFailed(RuntimeError):
    """A worker group failed before it requested a job. The message holds no document text."""


@dataclass
class GroupHost:
    """Actor whose threads run the trainers of all groups.

    Args:
        folder: Folder or URL for Ray Train's own files.
    """

    folder: str | Path

    def run(self, setup: WorkerSetup, resources: Resources) -> Problem | None:
        """Run one group whenever it is needed, until the queue is closed or the group is drained.

        Returns:
            Why the group was drained; None if it was not.

        Raises:
            WorkerGroupFailed: If the group cannot start.
        """
        failures = 0  # since the last job
        attempt = 0
        while ray.get(setup.queue.await_start.remote(setup.group)):
            if not _find_nodes(setup, resources):
                continue
            requests = ray.get(setup.queue.request_count.remote(setup.group))
            run_config = RunConfig(
                name=f"group-{setup.group}-{attempt}",
                storage_path=str(self.folder),
                # Restarts are made here, because Ray Train does not show why it restarts a group.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            )
            attempt += 1
            try:
                _make_trainer(setup, resources, run_config).fit()
                failures = 0
                continue
            except WorkerGroupError as error:
                causes = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
                killed = find_memory_kill(causes)
                if killed is not None:
                    ray.get(setup.queue.lose_for_memory.remote(setup.group, killed))
                reasons = [failure_reason(cause, allow_text=setup.allow_text) for cause in causes]
            except ControllerError as error:  # another group took the nodes, or one of them has left
                reasons = [failure_reason(error.controller_failure, allow_text=setup.allow_text)]
            idle = ray.get(setup.queue.request_count.remote(setup.group)) == requests
            failures = failures + 1 if idle else 0
            if failures > GROUP_RESTARTS:
                raise WorkerGroupFailed(" | ".join(dict.fromkeys(reasons)))
        return ray.get(setup.queue.drain_reason.remote(setup.group))  # type: ignore[no-any-return]


def _find_nodes(setup: WorkerSetup, resources: Resources) -> bool:
    """Wait until there are nodes with the resources of a group.

    Returns:
        False if the group is not needed any more.
    """
    request = placement_group([resources.get_worker_share()] * resources.workers_per_trial)
    try:
        while not request.wait(PLACEMENT_SECONDS):
            if not ray.get(setup.queue.is_needed.remote(setup.group)):
                return False
        ray.get(setup.queue.place.remote(setup.group))
        return True
    finally:
        remove_placement_group(request)


def _make_trainer(setup: WorkerSetup, resources: Resources, run_config: RunConfig) -> TorchTrainer:
    """Make the trainer that starts a group's processes."""
    from ray.train.torch import TorchConfig, TorchTrainer  # imports torch, which the driver does not need
    from torch.distributed import is_nccl_available

    gpus = resources.gpu_share
    return TorchTrainer(
        run_worker,
        train_loop_config=setup,
        scaling_config=ScalingConfig(
            num_workers=setup.workers, use_gpu=gpus > 0, resources_per_worker=resources.get_worker_share()
        ),
        torch_config=TorchConfig(backend="nccl" if gpus and is_nccl_available() else "gloo"),
        run_config=run_config,
    )
