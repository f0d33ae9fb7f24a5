"""Replicated models: each process of a trial holds all weights, and gradients are averaged over the processes (DDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from clinie_core.modeling.distributed import DistributedContext

__all__ = ["find_unused_parameters", "skip_gradient_sync", "wrap_data_parallel"]


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


def skip_gradient_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context within which each process accumulates gradients without synchronizing them.

    No-op for a sharded model, because the unsharded gradients may not fit into memory.
    """
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
