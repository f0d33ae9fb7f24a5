"""Sharded models: each process of a trial holds a shard of every weight (FSDP, torch's ``fully_shard``).

The model is divided into units: each layer, the embeddings, each head, and the root, which has the remaining weights.
A unit gathers its weights for its own computation and frees them afterwards, in the forward and in the backward pass.
Every pass is therefore a collective operation: all processes must take the same number of passes.

A unit converts its shards before it gathers them, so that weights are sent and held in the dtype of the computation.
Trained weights are float32 in their shards, and frozen weights have the dtype of the computation there, too. Gradients
are reduced in float32. Autocast is not used: it would hold a second copy of each weight until the backward pass. Heads
are an exception: their few weights are trained in float32, and their inputs are converted.

Weights are read from the memory-mapped files of the backbone, in each process the rows of its own shards only.

Source: Zhao et al. 2023, "PyTorch FSDP" (PVLDB 16(12)), in the form of torch's ``fully_shard``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from clinie_core.modeling.backbone_copies import get_deferred_weight
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.precision import Precision, choose_weight_dtype

__all__ = [
    "build_mesh",
    "find_rows",
    "fits_gathered",
    "gather_full_tensor",
    "gather_weights",
    "get_local_shard",
    "is_sharded",
    "measure_gathered_bytes",
    "shard",
    "take_shard",
]

GATHERED_MEMORY_SHARE = 0.5
"""Share of the free memory that the gathered weights may take; the rest is for activations, keys and values."""


@dataclass(frozen=True)
class _Weight:
    """A weight that is to be sharded.

    Args:
        source: Its values, on the CPU.
        placeholder: A parameter on the meta device with its final dtype.
        places: Modules that have the weight, and its names there.
    """

    source: nn.Parameter
    placeholder: nn.Parameter
    places: list[tuple[nn.Module, str]]


def build_mesh(distributed: DistributedContext) -> DeviceMesh:
    """Return a one-dimensional mesh of all processes; a collective operation."""
    return init_device_mesh(distributed.device.type, (distributed.size,))


def shard(model: nn.Module, backbone: nn.Module, mesh: DeviceMesh, precision: Precision, device: torch.device) -> None:
    """Shard a model in place: each process holds a shard of every parameter on its device.

    This is not a collective operation.

    Args:
        model: The model, equal in all processes, on the CPU, where its weights may be memory-mapped. The methods
            ``forward`` and ``predict`` of the model, and those of its heads, gather parameters.
        backbone: The part of the model with the repeated layers.
        mesh: The processes.
        precision: Number formats of the weights and the computation.
        device: Device of this process.
    """
    weights = _detach_weights(model, precision)
    reduced = precision.dtype if precision.is_reduced else None
    policy = MixedPrecisionPolicy(
        param_dtype=reduced, reduce_dtype=torch.float32 if reduced else None, cast_forward_inputs=False
    )
    for stack in _find_stacks(backbone):
        for layer in stack:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for embedding in _find_embeddings(backbone):
        unit = fully_shard(embedding, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        if isinstance(embedding, nn.Embedding):
            unit.set_unshard_in_backward(False)  # the gradient of a look-up does not depend on the weights
    whole = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    for head in model.get_submodule("heads").children():
        if next(head.parameters(), None) is not None:
            fully_shard(head, mesh=mesh, mp_policy=whole, reshard_after_forward=True)
            for method in ("compute_loss", "predict", "get_transition_scores"):
                register_fsdp_forward_method(head, method)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    register_fsdp_forward_method(model, "predict")
    _load_shards(weights, mesh, device)


def _find_stacks(backbone: nn.Module) -> Iterator[nn.ModuleList]:
    """Yield the outermost module lists of a backbone: the layers of its encoder, its decoder, or both."""
    for child in backbone.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _find_stacks(child)


def _find_embeddings(backbone: Any) -> list[nn.Module]:
    """Return the embeddings of tokens and the language-model head, unless they share their weight."""
    owners = Counter(id(p) for module in backbone.modules() for p in module.parameters(recurse=False))
    found = [backbone.get_input_embeddings(), getattr(backbone, "get_output_embeddings", lambda: None)()]
    return [m for m in found if m is not None and all(owners[id(p)] == 1 for p in m.parameters())]


def _detach_weights(model: nn.Module, precision: Precision) -> list[_Weight]:
    """Replace the parameters of a model by parameters on the meta device in their final dtype; return the values."""
    weights: dict[int, _Weight] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in weights:
                empty = torch.empty(parameter.shape, dtype=choose_weight_dtype(parameter, precision), device="meta")
                weights[id(parameter)] = _Weight(parameter, nn.Parameter(empty, parameter.requires_grad), [])
            weight = weights[id(parameter)]
            weight.places.append((module, name))
            module.register_parameter(name, weight.placeholder)
    return list(weights.values())


def _load_shards(weights: list[_Weight], mesh: DeviceMesh, device: torch.device) -> None:
    """Give each parameter on the meta device the rows of this process."""
    for weight in weights:
        first, name = weight.places[0]
        empty: Any = first.get_parameter(name)
        rows = find_rows(len(weight.source), mesh.size(), mesh.get_local_rank())
        values = get_deferred_weight(weight.source)[rows].to(device=device, copy=True).to(empty.dtype).contiguous()
        sharded = DTensor.from_local(
            values, mesh, [Shard(0)], run_check=False, shape=empty.shape, stride=empty.stride()
        )
        parameter = nn.Parameter(sharded, requires_grad=empty.requires_grad)
        for module, own_name in weight.places:
            module.register_parameter(own_name, parameter)


def find_rows(rows: int, processes: int, rank: int) -> slice:
    """Return the rows of a tensor that a process holds; the last processes may have fewer rows or none."""
    size = -(-rows // processes)
    start = min(rank * size, rows)
    return slice(start, min(start + size, rows))


def is_sharded(model: nn.Module) -> bool:
    """Return whether a part of a model's weights is sharded at present, so that a pass is a collective operation."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def measure_gathered_bytes(model: nn.Module, precision: Precision) -> int:
    """Return the size of a model's weights in the dtype of the computation."""
    size = precision.dtype.itemsize
    return sum(p.numel() * (size if p.is_floating_point() else p.element_size()) for p in model.parameters())


@contextmanager
def gather_weights(model: nn.Module) -> Iterator[None]:
    """Return a context within which each process has all weights of a sharded model, in the dtype of the computation.

    Predictions then need no communication, which generation would otherwise need for each token. Entering is a
    collective operation.

    Args:
        model: The sharded model; its weights must not change within the context.
    """
    assert isinstance(model, FSDPModule)
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model.set_reshard_after_forward(False)
    try:
        for unit in units:
            unit.unshard()
        yield
    finally:
        model.set_reshard_after_forward(True)
        for unit in units:
            unit.reshard()


def fits_gathered(needed: float, free: float) -> bool:
    """Return whether all weights of a sharded model fit into memory.

    Args:
        needed: Their size in bytes; see :func:`measure_gathered_bytes`.
        free: Free memory of a device in bytes.
    """
    return needed <= GATHERED_MEMORY_SHARE * free


def gather_full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; a collective operation.

    Returns:
        The full tensor on the CPU in rank 0, and an empty tensor in other processes. A tensor that is not sharded is
        returned unchanged.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor().detach()
    return full.cpu() if dist.get_rank() == 0 else full.new_empty(0, device="cpu")


def take_shard(tensor: Tensor, own: Tensor) -> Tensor:
    """Shard a full tensor in the same way as another tensor.

    Args:
        tensor: The full tensor, equal in all processes, possibly memory-mapped.
        own: The tensor that determines device and sharding.

    Returns:
        The sharded tensor. The argument itself if ``own`` is not sharded or has another shape.
    """
    if not isinstance(own, DTensor) or tensor.shape != own.shape:
        return tensor
    mesh = own.device_mesh
    rows = find_rows(len(tensor), mesh.size(), mesh.get_local_rank())
    values = tensor[rows].to(own.device, copy=True)
    return DTensor.from_local(values, mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride())


def get_local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, on the same memory; the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
