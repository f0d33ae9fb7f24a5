"""Safetensors file that is written one tensor at a time, so that a sharded model is never whole in one process.

The header states names, shapes and offsets of all tensors, which are known before any tensor is gathered.

Source: the format's description, https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.sharding import gather_full_tensor

__all__ = ["GatheredTensors", "write_tensors"]

DTYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.uint8: "U8", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
}
"""Names of number formats in the header."""
ALIGNMENT = 8


class GatheredTensors:
    """Tensors that are gathered one at a time from the processes of a sharded model.

    Iterating is a collective operation, and all processes must gather all tensors. When it ends, the context gathers
    those that are left: processes that do not write, or fail to, do not block the others.

    Args:
        tensors: Tensors by name, equal in all processes; those that are not sharded are used as they are.
        distributed: The processes that share the model.
    """

    def __init__(self, tensors: Mapping[str, Tensor], distributed: DistributedContext) -> None:
        self._distributed = distributed
        # In this order, the tensors of a file are aligned.
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
        """The tensors, sharded or not, in the order in which they are gathered."""
        self._remaining = iter(self.tensors.values())

    def __iter__(self) -> Iterator[Tensor]:
        """Gather the tensors that are left; each is on the CPU in rank 0, and empty in other processes."""
        for tensor in self._remaining:
            if isinstance(tensor, DTensor):  # rank 0 may write slowly, and NCCL's time limit is short
                self._distributed.wait_for_rank_zero()
            yield gather_full_tensor(tensor.detach()).cpu()

    def __enter__(self) -> Self:
        """Start a context that gathers all tensors."""
        return self

    def __exit__(self, *error: object) -> None:
        """Gather the tensors that are left."""
        for _ in self:
            pass


def write_tensors(file: Path, gathered: GatheredTensors, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; it holds the memory of one tensor at a time.

    Args:
        file: The file to write.
        gathered: The tensors. None has been gathered yet.
        metadata: Texts by name, stored in the header; None for none.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in gathered.tensors.items():
        end = start + tensor.numel() * tensor.dtype.itemsize
        shape = list(tensor.shape)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    with file.open("wb") as output:
        output.write(len(text).to_bytes(8, "little") + text)
        for tensor in gathered:
            if tensor.numel():
                output.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is gathered
