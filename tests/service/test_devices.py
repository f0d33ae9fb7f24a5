"""The device of each worker follows the resources that Ray grants, on a machine with simulated GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from search.config.resources import Resources

if TYPE_CHECKING:
    import torch

    from search.pool.worker import OnReport, Program
    from search.trials.job import Job

GPUS = 3
CASES = {
    "no-gpu": Resources(concurrent_trials=1),
    "half": Resources(gpus_per_worker=0.5, concurrent_trials=2),
    "two-processes": Resources(gpus_per_worker="auto", workers_per_trial=2, concurrent_trials=1),
}
"""Resources of pools that run at the same time and use all GPUs."""


@dataclass(frozen=True)
class Granted:
    """Device of one worker process.

    Args:
        group: Id of the job that the process received; each group receives one job.
        device: Device that the process uses.
        visible: Value of ``CUDA_VISIBLE_DEVICES``.
        initialized: Whether CUDA was initialized.
    """

    group: str
    device: str
    visible: str
    initialized: bool

    @property
    def gpu(self) -> str | None:
        """Id of the used GPU on its node."""
        kind, _, index = self.device.partition(":")
        return self.visible.split(",")[int(index)] if kind == "cuda" else None


def make_device_program(device: torch.device) -> Program:
    """Return a program that writes the device of its process to a file."""
    import torch

    def run(job: Job, on_report: OnReport) -> None:
        from search.trials.result import EpochResult

        assert job.folder is not None
        row = [job.id, str(device), os.environ.get("CUDA_VISIBLE_DEVICES", ""), torch.cuda.is_initialized()]  # type: ignore[no-untyped-call]
        (job.folder / uuid.uuid4().hex).write_text(json.dumps(row), encoding="ascii")
        if torch.distributed.get_rank() == 0:
            on_report(EpochResult(1, {"strict_f1": 1.0}))  # waits, so that the group takes no second job
        torch.distributed.barrier()

    return run


def record_devices(folder: Path) -> None:
    """Run all cases on a Ray with simulated GPUs and write the device of every process."""
    import search.cluster.environment  # noqa: I001  # before Ray
    import ray
    import ray.cloudpickle

    import search
    from search.pool.pool import WorkerPool
    from search.trials.job import Job

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("local", num_cpus=6, num_gpus=GPUS, include_dashboard=False, log_to_driver=False)
    with ExitStack() as stack:
        waiting = []
        for name, resources in CASES.items():
            rows = folder / name
            rows.mkdir()
            pool = stack.enter_context(WorkerPool([resources], make_device_program, folder / "ray" / name))
            jobs = [Job(uuid.uuid4().hex, n, "{}", "tiny", rows) for n in range(pool.groups)]
            waiting += [(pool, job, pool.queue.submit.remote(job)) for job in jobs]
        ray.get([first_epoch for _, _, first_epoch in waiting])
        ray.get([pool.queue.cancel.remote(job.id) for pool, job, _ in waiting])  # idle groups end by themselves
    study = search.run(folder / "space.yaml", home=folder / "home", show_progress=True)
    assert study.outcome is not None
    trials = [(r.state, r.reason) for r in study.records]
    (folder / "trials.json").write_text(json.dumps(trials), encoding="ascii")


pytestmark = pytest.mark.slow  # a Ray with six worker groups takes one to three minutes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> tuple[Path, str]:
    """Folder with the devices of all cases, and what a search of one trial without GPUs has printed."""
    folder = tmp_path_factory.mktemp("devices")
    space: dict[str, Any] = {
        "version": 1,
        "study": "unused",
        "corpus": {"path": str(corpus_folder)},
        "budget": {"trials": 1, "epochs": 1},
        "resources": {"concurrent_trials": 1},
        "backbones": {"tiny": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1,
                                           "num_attention_heads": 2, "intermediate_size": 64}}},
        "space": {"backbone": "tiny", "formulation": "token_classification", "finetuning": "full",
                  "window_tokens": 96, "window_overlap": 16},
    }  # fmt: skip
    (folder / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    command = [sys.executable, "-m", "tests.service.test_devices", str(folder)]
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS")}
    env |= {"PYTHONWARNINGS": "ignore", "COLUMNS": "140"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder, done.stderr


def read_devices(folder: Path, name: str) -> list[Granted]:
    return [Granted(*json.loads(file.read_text())) for file in sorted((folder / name).iterdir())]


def test_a_group_without_a_gpu_trains_on_the_cpu_and_sees_no_gpu(recorded: tuple[Path, str]) -> None:
    (found,) = read_devices(recorded[0], "no-gpu")
    assert (found.device, found.visible, found.initialized) == ("cpu", "", False)


def test_each_process_trains_on_the_gpu_that_it_was_granted(recorded: tuple[Path, str]) -> None:
    used = {name: [g.gpu for g in read_devices(recorded[0], name)] for name in ("half", "two-processes")}
    assert [len(used["half"]), len(used["two-processes"])] == [2, 2]
    assert len(set(used["two-processes"])) == 2
    assert set(used["half"]) == {str(gpu) for gpu in range(GPUS)} - set(used["two-processes"])


def test_the_processes_of_a_group_share_a_job(recorded: tuple[Path, str]) -> None:
    assert len({g.group for g in read_devices(recorded[0], "two-processes")}) == 1


def test_a_search_that_uses_no_gpu_warns_and_trains_on_the_cpu(recorded: tuple[Path, str]) -> None:
    folder, shown = recorded
    assert "space.yaml: resources.gpus_per_worker: 3 GPUs available, this space uses none" in " ".join(shown.split())
    assert json.loads((folder / "trials.json").read_text()) == [["complete", None]]


if __name__ == "__main__":
    record_devices(Path(sys.argv[1]))
