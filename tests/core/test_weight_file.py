"""A checkpoint's weights are gathered and written one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from clinie_core.errors import DiskFull
from clinie_core.modeling import checkpoint as checkpoint_module
from clinie_core.modeling.checkpoint import Checkpoint
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.weight_file import DTYPES, GatheredTensors, write_tensors
from clinie_core.training.live_storage import LiveStorage
from tests.core.test_memory_estimate import SCHEMA, make_config

PROCESSES = 4
LAYERS, ROWS, COLUMNS = 24, 64, 512


@pytest.fixture
def sharded() -> Iterator[dict[str, Tensor]]:
    """Equal layers that four processes share; this process is the first, and the others do not exist."""
    dist.init_process_group("fake", rank=0, world_size=PROCESSES, store=FakeStore())
    mesh = init_device_mesh("cpu", (PROCESSES,))
    try:
        yield {
            f"layers.{number}": nn.Parameter(
                DTensor.from_local(torch.ones(ROWS // PROCESSES, COLUMNS), mesh, [Shard(0)], run_check=False)
            )
            for number in range(LAYERS)
        }
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_each_number_format_is_read_as_it_was_written(dtype: torch.dtype, tmp_path: Path) -> None:
    values = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "transposed": torch.arange(6).reshape(2, 3).to(dtype).T,
        "number": torch.tensor(1).to(dtype),
        "empty": torch.empty(0, 3).to(dtype),
        "odd": torch.tensor([True, False, True]),
        "wide": torch.tensor([1.5], dtype=torch.float64),
    }
    file = tmp_path / "model.safetensors"
    write_tensors(file, GatheredTensors(values, DistributedContext()))
    found = load_file(file)
    assert found.keys() == values.keys()
    for name, tensor in values.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].double(), tensor.double())


def test_a_process_holds_one_gathered_tensor_at_a_time(sharded: dict[str, Tensor], tmp_path: Path) -> None:
    whole = ROWS * COLUMNS * 4
    with LiveStorage() as storage:
        storage.track(sharded.values())
        storage.reset_peak()
        held = storage.current
        write_tensors(tmp_path / "model.safetensors", GatheredTensors(sharded, DistributedContext()))
    assert held == LAYERS * whole / PROCESSES
    assert whole <= storage.peak - held <= 2 * whole, "gathering joins the rows of all processes in a second tensor"
    found = load_file(tmp_path / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == dict.fromkeys(sharded, torch.Size([ROWS, COLUMNS]))


def test_a_process_that_cannot_write_gathers_all_tensors(
    sharded: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_first(file: Path, gathered: GatheredTensors) -> Any:
        next(iter(gathered))
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint_module, "write_tensors", write_first)
    config = make_config("encoder", "token_classification", "full")
    with pytest.raises(DiskFull), GatheredTensors(sharded, DistributedContext()) as gathered:
        Checkpoint(config, SCHEMA, {}).save(tmp_path / "best", gathered)
    assert list(gathered) == []
    assert not (tmp_path / "best").exists()
