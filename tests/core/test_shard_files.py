"""Each process writes its rows of sharded tensors; any number of processes can read them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from clinie_core.errors import DiskFull, InputError
from clinie_core.modeling import shard_files
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.shard_files import ShardReader, write_gathered_shards, write_shards
from clinie_core.modeling.sharding import take_shard
from clinie_core.modeling.weight_file import GatheredTensors

TENSORS = {
    "a/wide": torch.arange(33.0).reshape(11, 3),
    "a/short": torch.arange(2, dtype=torch.bfloat16),
    "b/vector": torch.arange(16.0),
    "b/number": torch.tensor(7),
}
PLAIN = {"b/number"}


@contextmanager
def join(rank: int, processes: int) -> Iterator[dict[str, Tensor]]:
    """Provide the tensors of one of several processes; the other processes do not exist."""
    dist.init_process_group("fake", rank=rank, world_size=processes, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (processes,))
        found: dict[str, Tensor] = {}
        for name, tensor in TENSORS.items():
            if name in PLAIN:
                found[name] = tensor
            else:
                empty = tensor.new_empty(-(-len(tensor) // processes), *tensor.shape[1:])
                shape, stride = tensor.shape, tensor.stride()
                own = DTensor.from_local(empty, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
                found[name] = take_shard(tensor, own)
        yield found
    finally:
        dist.destroy_process_group()


def write(folder: Path, processes: int) -> None:
    folder.mkdir()
    for rank in range(processes):
        with join(rank, processes) as own:
            write_shards(folder, own, rank, processes)


@pytest.mark.parametrize("readers", [1, 2, 3, 8])
@pytest.mark.parametrize("writers", [1, 2, 5])
def test_any_number_of_processes_reads_what_others_wrote(writers: int, readers: int, tmp_path: Path) -> None:
    write(tmp_path / "shards", writers)
    for rank in range(readers):
        with join(rank, readers) as own, ShardReader.open(tmp_path / "shards") as reader:
            assert reader.list_names("a/") == ["short", "wide"]
            for name, tensor in own.items():
                assert reader.get_shape(name) == tensor.shape
                found = reader.read(name, tensor)
                assert found.dtype == tensor.dtype
                if isinstance(tensor, DTensor):
                    assert isinstance(found, DTensor)
                    found, tensor = found.to_local(), tensor.to_local()
                assert torch.equal(found, tensor)


def test_a_process_without_sharding_reads_whole_tensors(tmp_path: Path) -> None:
    write(tmp_path / "shards", 3)
    with ShardReader.open(tmp_path / "shards") as reader:
        for name, tensor in TENSORS.items():
            assert torch.equal(reader.read(name, torch.empty_like(tensor)), tensor)


@pytest.mark.parametrize("readers", [1, 3])
def test_processes_without_a_common_folder_read_what_one_gathered(readers: int, tmp_path: Path) -> None:
    whole = GatheredTensors(TENSORS, DistributedContext())
    write_gathered_shards(tmp_path, whole)
    for rank in range(readers):
        with join(rank, readers) as own, ShardReader.open(tmp_path) as reader:
            for name, tensor in own.items():
                found = reader.read(name, tensor)
                rows = found.to_local() if isinstance(found, DTensor) else found
                assert torch.equal(rows, tensor.to_local() if isinstance(tensor, DTensor) else tensor)


def test_a_missing_file_is_reported_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "shards", 3)
    (tmp_path / "shards" / "00001.safetensors").unlink()
    with (
        pytest.raises(InputError, match="2 files of 3 processes; one file for each") as error,
        ShardReader.open(tmp_path / "shards"),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_reported_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "shards", 2)
    file = tmp_path / "shards" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with (
        pytest.raises(InputError, match=r"00001\.safetensors: not a complete safetensors file"),
        ShardReader.open(tmp_path / "shards"),
    ):
        pass


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_files, "save_file", fill)
    with pytest.raises(DiskFull, match=r"00000\.safetensors cannot be written"), join(0, 2) as own:
        write_shards(tmp_path, own, 0, 2)
