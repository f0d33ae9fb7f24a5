"""A sharded training whose process is killed has the same result as one without faults, when it resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from clinie_core.config import TrialConfig
from clinie_core.modeling import checkpoint, folder_replacement
from clinie_core.training import state
from clinie_core.training.train import EpochReport, train
from clinie_core.training.trainer import Trainer
from tests.core.test_sharding import make_corpus, make_tiny_config

EPOCHS, PROCESSES = 3, 2
TIME_LIMIT = 600
"""Seconds after which an attempt fails."""
CONFIG: TrialConfig = make_tiny_config("encoder", epochs=EPOCHS, ema_decay=0.9)
POINTS: dict[str, tuple[Any, str, int, int]] = {
    "in an epoch": (Trainer, "_step", 1, 3),
    "before weights are written": (checkpoint, "write_tensors", 0, 3),
    "after a process has written its shards": (state, "write_shards", 1, 2),
    "between the renames of a folder": (folder_replacement, "_set_aside", 0, 1),
}
"""Function before or after whose call a process is killed, the rank of that process, and the 1-based call."""
AFTER = {"after a process has written its shards", "between the renames of a folder"}


def kill_at(point: str) -> None:
    """Kill this process at a point of its training."""
    owner, name, rank, count = POINTS[point]
    if distributed.get_rank() != rank:
        return
    call: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def call_and_kill(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and point not in AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **options)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call_and_kill)


def learn(folder: Path) -> None:
    """Train with the other process, from the last state of the folder if there is one, and write the losses."""
    losses: list[float] = []

    def on_epoch(report: EpochReport) -> bool:
        losses.append(report.metrics["train_loss"])
        return True

    train(CONFIG, make_corpus(3), folder=folder, on_epoch=on_epoch)
    if distributed.get_rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses), encoding="utf-8")


def learn_all(root: Path, attempt: int, rank: int) -> None:
    """Train in one of two processes: first what the last attempt left, then until a process is killed at a point."""
    torch.set_num_threads(1)
    store = f"file://{root}/store-{attempt}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    learn(root / ["undisturbed", *POINTS][attempt])
    if attempt < len(POINTS):
        point = list(POINTS)[attempt]
        kill_at(point)
        learn(root / point)
    distributed.destroy_process_group()


def run_attempt(root: Path, attempt: int) -> list[int]:
    """Start two processes, and kill one that is left when the other was killed; return their exit codes."""
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-m", __name__, str(root), str(attempt)]
    processes = [subprocess.Popen([*command, str(rank)], cwd=folder) for rank in range(PROCESSES)]
    try:
        deadline = time.monotonic() + TIME_LIMIT
        while any(p.poll() is None for p in processes) and not any(p.poll() for p in processes):
            assert time.monotonic() < deadline, f"attempt {attempt} takes too long"
            time.sleep(0.05)
        return [process.poll() or 0 for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the trained models of all points."""
    root = tmp_path_factory.mktemp("recovery")
    for attempt, (point, (_, _, rank, _)) in enumerate(POINTS.items()):
        codes = run_attempt(root, attempt)
        assert codes[rank] == -signal.SIGKILL, f"process {rank} was not killed {point}: {codes}"
    assert run_attempt(root, len(POINTS)) == [0] * PROCESSES
    return root


@pytest.mark.slow  # two processes are started five times
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_process_does_not_change_the_result(point: str, trained: Path) -> None:
    found, expected = (
        json.loads((trained / name / "losses.json").read_text(encoding="utf-8")) for name in (point, "undisturbed")
    )
    assert len(expected) == EPOCHS
    assert found == expected
    weights, same = (load_file(trained / name / "best" / "model.safetensors") for name in (point, "undisturbed"))
    assert weights.keys() == same.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, same[name]), name


if __name__ == "__main__":
    learn_all(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
