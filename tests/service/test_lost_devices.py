"""A group whose device fails at each trial is drained; the pool continues until no group remains."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import ray.cloudpickle
import ray.train
import torch

from search.config.resources import Resources
from search.pool import worker
from search.pool.job_losses import MAX_LOST_TRIALS
from search.pool.pool import WorkerPool
from search.pool.worker import OnReport, Program
from search.trials.job import Job, JobEnded
from search.trials.result import EpochResult

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("local_ray")


def make_broken_program(device: torch.device) -> Program:
    """Return a program whose device fails at a trial with the configuration "broken"."""

    def run(job: Job, on_report: OnReport) -> None:
        if job.config == "broken":
            vars(worker)["is_usable"] = lambda device: False  # as after a device-side assertion
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        on_report(EpochResult(1, {"strict_f1": 1.0}, finished=True))

    return run


def test_a_broken_device_loses_the_job_and_a_group_that_loses_one_trial_after_another_is_drained(
    tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    with WorkerPool([Resources(concurrent_trials=1)], make_broken_program, tmp_path) as pool:
        ends = []
        for number in range(MAX_LOST_TRIALS):
            assert pool.take_warnings() == []
            ends.append(ray.get(pool.queue.submit.remote(Job(uuid.uuid4().hex, number, "broken", "tiny"))))
        node = f"node {ray.util.get_node_ip_address()}"
        for ended in ends:
            assert isinstance(ended, JobEnded)
            assert ended.cause == "worker_lost"
            assert ended.reason.startswith(f"{node} cannot be used any more after AcceleratorError at ")
        wait_until(lambda: pool.failure() is not None)
        expected = f"{node}: worker group 0 lost {MAX_LOST_TRIALS} trials in a row, the last one because {node} cannot"
        assert str(pool.failure()).startswith(f"no worker group remains: {expected}")
        assert [str(warning).startswith(expected) for warning in pool.take_warnings()] == [True]
        assert pool.take_warnings() == []
