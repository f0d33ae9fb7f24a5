"""One model over the processes of a distributed: a whole copy in each (DDP), or a part of one in each (FSDP).

A sharded model's layers are put together when they are computed and taken apart again, so that no process holds more
than one of them beside its own parts. Every forward pass is then a collective: all processes must take the same number.

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

from clinie_core.backbones.layer_removal import layer_stack
from clinie_core.modeling.distributed import DistributedContext

__all__ = [
    "distribute_like",
    "gather_full_tensor",
    "local_part",
    "make_mesh",
    "no_gradient_sync",
    "shard",
    "unshard_heads",
    "wrap_data_parallel",
]


def wrap_data_parallel(model: nn.Module, distributed: DistributedContext, *, several_heads: bool) -> nn.Module:
    """A model's wrapper that adds up gradients over processes; the model itself if there is one process.

    Args:
        model: The same in every process, on its device.
        distributed: The processes.
        several_heads: Whether a batch leaves weights without a gradient.
    """
    if distributed.size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=several_heads)


def make_mesh(distributed: DistributedContext) -> DeviceMesh:
    """All processes of a distributed in a row; all of them must call."""
    return init_device_mesh(distributed.device.type, (distributed.size,))


def shard(model: nn.Module, backbone: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Share a model out between processes, in place: each keeps its part of every parameter, on its device.

    No process waits for another one here.

    Args:
        model: The same in every process, still on the CPU: only one layer at a time is whole on the device. Its
            methods ``forward`` and ``outputs`` put it together.
        backbone: The part of it with the repeated layers.
        mesh: The processes.
    """
    for layer in layer_stack(backbone)[1]:
        fully_shard(layer, mesh=mesh)
    # Embeddings and heads stay together from the forward to the backward pass, which needs them first.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "outputs")
    return model


def no_gradient_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Within this context gradients add up in each process; outside, the next backward pass exchanges them.

    A sharded model exchanges them every time: those of a whole model are what does not fit.
    """
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


@contextmanager
def unshard_heads(model: nn.Module) -> Iterator[None]:
    """Within this context a model's heads and embeddings are whole, in every process; a collective at both ends."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def gather_full_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, whole and on the CPU in rank 0, and empty in the others; itself if it is not.

    All processes must call. They hold one such tensor at a time on their devices.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    found: Tensor = tensor.full_tensor().detach()
    return found.cpu() if dist.get_rank() == 0 else found.new_empty(0, device="cpu")


def distribute_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor as another one is: this process's part of it, if that one is sharded. All processes must call."""
    if not isinstance(own, DTensor) or tensor.shape != own.shape:
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that is in this process, on the same memory; the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
