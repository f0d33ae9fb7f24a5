"""Data-parallel and sharded models: a replica in each process (DDP), or a shard in each process (FSDP).

A layer of a sharded model is gathered for its computation and freed afterwards, so that a process holds at most one
whole layer in addition to its shards. Every forward pass is therefore a collective operation: all processes must take
the same number of passes.

Source: Zhao et al. 2023, "PyTorch FSDP" (PVLDB 16(12)), in the form of torch's ``fully_shard``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.modeling.distributed import DistributedContext

__all__ = [
    "build_mesh",
    "distribute_like",
    "find_unused_parameters",
    "gather_full_tensor",
    "get_local_shard",
    "shard",
    "skip_gradient_sync",
    "unshard_heads",
    "wrap_data_parallel",
]


def find_unused_parameters(model: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of the trained parameters that a loss does not depend on.

    For example, the global attention of Longformer is not used if no token has global attention.

    Args:
        model: The model.
        loss: Its loss on any input; the graph of its computation is searched, and no gradient is computed.
    """
    used: set[int] = set()
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            used.add(id(getattr(node, "variable", None)))  # nodes that accumulate a gradient have a variable
            waiting += [following for following, _ in node.next_functions]
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in used]


def wrap_data_parallel(model: nn.Module, distributed: DistributedContext, *, find_unused: bool) -> nn.Module:
    """Wrap a model such that gradients are averaged over processes; return the model itself for one process.

    Args:
        model: The model, equal in all processes, on the device of this process.
        distributed: The processes.
        find_unused: Whether some weights may have no gradient after a batch. DDP then searches for them in each step;
            otherwise it would wait for their gradients.
    """
    if distributed.size == 1:
        return model
    pretrained = getattr(model, "pretrained_names", ())
    shared = [name for name, p in model.named_parameters() if name in pretrained and not p.requires_grad]
    # DDP would overwrite the memory that trials share, and thereby copy the pages of mapped files.
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, shared)  # type: ignore[no-untyped-call]
    return nn.parallel.DistributedDataParallel(
        model,
        find_unused_parameters=find_unused,
        broadcast_buffers=False,  # training does not change buffers
        gradient_as_bucket_view=True,  # otherwise each process holds a second copy of the gradients
    )


def build_mesh(distributed: DistributedContext) -> DeviceMesh:
    """Return a one-dimensional mesh of all processes; a collective operation."""
    return init_device_mesh(distributed.device.type, (distributed.size,))


def shard(model: nn.Module, backbone: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a model in place: each process holds a shard of every parameter on its device.

    This is not a collective operation.

    Args:
        model: The model, equal in all processes, on the CPU: the whole model may not fit on the device. The methods
            ``forward`` and ``predict`` gather its parameters.
        backbone: The part of the model with the repeated layers.
        mesh: The processes.

    Returns:
        The model.
    """
    for layer in find_layers(backbone)[1]:
        fully_shard(layer, mesh=mesh)
    # Embeddings and heads stay gathered between the forward and the backward pass, which needs the heads first.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "predict")
    return model


def skip_gradient_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context within which each process accumulates gradients without synchronizing them.

    No-op for a sharded model, because the unsharded gradients may not fit into memory.
    """
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


@contextmanager
def unshard_heads(model: nn.Module) -> Iterator[None]:
    """Gather a sharded model's heads and embeddings in every process; entering is a collective operation."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


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


def distribute_like(tensor: Tensor, own: Tensor) -> Tensor:
    """Shard a full tensor in the same way as another tensor; a collective operation.

    Args:
        tensor: The full tensor, equal in all processes.
        own: The tensor that determines device and sharding.

    Returns:
        The sharded tensor. The argument itself if ``own`` is not sharded or has another shape.
    """
    if not isinstance(own, DTensor) or tensor.shape != own.shape:
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)


def get_local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, on the same memory; the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
