"""Files with sharded tensors: each process writes the rows that it holds, and any number of processes can read them.

A folder has one safetensors file for each process that wrote it. The metadata of a file names the first row and the
shape of each tensor, so that a reader takes the rows that it needs from all files, which are memory-mapped. If the
processes have no common folder, one process gathers the tensors and writes all rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from clinie_core.errors import fail, map_disk_full
from clinie_core.modeling.sharding import find_rows
from clinie_core.modeling.weight_file import GatheredTensors, write_tensors

__all__ = ["ShardReader", "sync_file", "write_gathered_shards", "write_shards"]


def write_shards(folder: Path, tensors: Mapping[str, Tensor], rank: int, processes: int) -> None:
    """Write the rows of a process; the file is on the disk when the function returns.

    Args:
        folder: An existing folder, the same in all processes.
        tensors: Sharded tensors by name, equal in all processes; rank 0 writes those that are not sharded.
        rank: Number of this process.
        processes: Number of processes.

    Raises:
        DiskFull: If the disk is full.
    """
    parts: dict[str, Tensor] = {}
    layout: dict[str, tuple[int, list[int]]] = {}
    for name, tensor in tensors.items():
        rows = find_rows(len(tensor), processes, rank) if isinstance(tensor, DTensor) else slice(0, 0)
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if local.numel() and (rank == 0 or isinstance(tensor, DTensor)):
            parts[name] = local.detach().cpu().contiguous()
            layout[name] = rows.start, list(tensor.shape)
    file = _name_file(folder, rank)
    with map_disk_full(file):
        save_file(parts, file, _make_metadata(processes, layout))
        sync_file(file)


def write_gathered_shards(folder: Path, gathered: GatheredTensors) -> None:
    """Write all rows as one process, which holds the memory of one whole tensor at a time.

    Args:
        folder: An existing folder.
        gathered: The tensors. None has been gathered yet.

    Raises:
        DiskFull: If the disk is full.
    """
    file = _name_file(folder, 0)
    layout = {name: (0, list(tensor.shape)) for name, tensor in gathered.tensors.items()}
    with map_disk_full(file):
        write_tensors(file, gathered, _make_metadata(1, layout))
        sync_file(file)


def _name_file(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.safetensors"


def _make_metadata(processes: int, layout: Mapping[str, tuple[int, list[int]]]) -> dict[str, str]:
    return {"processes": str(processes), "layout": json.dumps(layout)}


def sync_file(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Part:
    """Rows of a tensor in one file."""

    file: Any
    start: int
    shape: tuple[int, ...]


class ShardReader:
    """Reader of the tensors that several processes wrote with :func:`write_shards`.

    Args:
        parts: The parts of each tensor by its name.
    """

    def __init__(self, parts: Mapping[str, list[_Part]]) -> None:
        self._parts = parts

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[ShardReader]:
        """Open the files of a folder.

        Raises:
            InputError: If a file is missing or damaged.
        """
        files = sorted(folder.glob("*.safetensors"))
        parts: dict[str, list[_Part]] = {}
        with ExitStack() as stack:
            processes = 0
            for path in files:
                try:
                    file = stack.enter_context(safe_open(path, framework="pt"))
                except SafetensorError:
                    fail(str(path), "not a complete safetensors file", remedy="delete the folder to train again")
                metadata = file.metadata()
                processes = int(metadata["processes"])
                for name, (start, shape) in json.loads(metadata["layout"]).items():
                    parts.setdefault(name, []).append(_Part(file, start, tuple(shape)))
            if not files or len(files) != processes:
                fail(
                    str(folder),
                    f"{len(files)} files of {processes or 'several'} processes",
                    allowed="one file for each process that wrote them",
                    remedy="use a folder that all nodes share, or delete this one to train again",
                )
            yield cls(parts)

    def list_names(self, prefix: str) -> list[str]:
        """Return the names of tensors that have a prefix, without the prefix."""
        return sorted(name.removeprefix(prefix) for name in self._parts if name.startswith(prefix))

    def get_shape(self, name: str) -> torch.Size:
        """Return the shape of a whole tensor."""
        return torch.Size(self._parts[name][0].shape)

    def read(self, name: str, own: Tensor) -> Tensor:
        """Read a tensor.

        Args:
            name: Its name.
            own: A tensor of the same shape that determines device and sharding.

        Returns:
            The rows of this process if ``own`` is sharded, as a sharded tensor; otherwise the whole tensor.
        """
        if not isinstance(own, DTensor):
            return self._read_rows(name, None).to(own.device)
        mesh = own.device_mesh
        rows = find_rows(len(own), mesh.size(), mesh.get_local_rank())
        local = self._read_rows(name, rows).to(own.device)
        return DTensor.from_local(local, mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride())

    def _read_rows(self, name: str, rows: slice | None) -> Tensor:
        """Return the rows of a tensor on the CPU; all of it for None."""
        parts = sorted(self._parts[name], key=lambda part: part.start)
        shape = parts[0].shape
        if not shape:
            whole: Tensor = parts[0].file.get_tensor(name)
            return whole
        rows = rows or slice(0, shape[0])
        pieces = []
        for part in parts:
            stored = part.file.get_slice(name)
            count = stored.get_shape()[0]
            first, last = max(rows.start, part.start), min(rows.stop, part.start + count)
            if first < last:
                pieces.append(stored[first - part.start : last - part.start])
        if not pieces:
            return parts[0].file.get_slice(name)[:0]  # type: ignore[no-any-return]
        joined = torch.cat(pieces)
        assert len(joined) == rows.stop - rows.start, "the files contain all rows"
        return joined
