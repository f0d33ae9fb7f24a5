"""The device of each served replica follows the resources that Ray grants, on a machine with simulated GPUs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from clinie_core.modeling.distributed import DistributedContext

GPUS = 2
CASES: dict[str, tuple[int, float | None]] = {"default": (2, None), "shared": (2, 0.5), "cpu": (1, 0.0)}
"""Number of replicas, and GPUs of each; None for the default."""


class RecordingExtractor:
    """Extractor without a model that writes its device to a file; no GPU exists that could hold a model."""

    task = "concepts"

    @classmethod
    def load(cls, folder: Path, *, distributed: DistributedContext) -> RecordingExtractor:
        """Write the device and the visible GPUs of this process."""
        row = [str(distributed.device), os.environ.get("CUDA_VISIBLE_DEVICES", "")]
        (folder / uuid.uuid4().hex).write_text(json.dumps(row), encoding="ascii")
        return cls()


def record_devices(folder: Path) -> None:
    """Start the replicas of each case in turn on a Ray with simulated GPUs."""
    import ray
    import ray.cloudpickle

    from search.serving import replica_backend

    class RecordingReplica(replica_backend.Replica):
        """Replica with a recording extractor."""

        def __init__(self, folder: str, threads: int, gpus: float) -> None:
            from clinie_core.inference.extractor import Extractor

            Extractor.load = RecordingExtractor.load  # type: ignore[method-assign,assignment]
            super().__init__(folder, threads, gpus)

    replica_backend.Replica = RecordingReplica  # type: ignore[misc]
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("local", num_cpus=4, num_gpus=GPUS, include_dashboard=False, log_to_driver=False)
    for name, (replicas, gpus) in CASES.items():
        (folder / name).mkdir()
        with replica_backend.run_replicas(folder, replicas, 1, gpus) as backend:
            assert asyncio.run(backend.load(folder / name)) == "concepts"
        ray.serve.shutdown()  # the replicas of the next case need the GPUs


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Device and visible GPUs of each replica, by case."""
    folder = tmp_path_factory.mktemp("replicas")
    command = [sys.executable, "-m", "tests.service.test_replica_devices", str(folder)]
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS")}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-6000:]
    return {name: [json.loads(file.read_text()) for file in (folder / name).iterdir()] for name in CASES}


pytestmark = pytest.mark.slow  # a Ray with five replicas takes one to three minutes


def test_each_replica_has_a_gpu_of_its_own_by_default(recorded: dict[str, list[Any]]) -> None:
    assert sorted(recorded["default"]) == [["cuda:0", str(gpu)] for gpu in range(GPUS)]


def test_replicas_with_half_a_gpu_use_the_granted_one(recorded: dict[str, list[Any]]) -> None:
    assert len(recorded["shared"]) == 2
    assert {device for device, _ in recorded["shared"]} == {"cuda:0"}
    assert {visible for _, visible in recorded["shared"]} <= {str(gpu) for gpu in range(GPUS)}


def test_a_replica_without_a_gpu_uses_the_cpu(recorded: dict[str, list[Any]]) -> None:
    assert recorded["cpu"] == [["cpu", ""]]


if __name__ == "__main__":
    record_devices(Path(sys.argv[1]))
