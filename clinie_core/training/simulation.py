"""Simulated execution: tensors have shapes but no memory, so that a training step needs neither GPU nor weights.

Floating-point tensors are FakeTensors on the CPU. Integer and boolean tensors are real, because their values determine
shapes and control flow, such as the positions of targets or the end of a generated answer. Where they depend on
floating-point values, they are 1.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["simulate", "simulate_processes"]

aten = torch.ops.aten
_numbers = itertools.count()


class _Simulation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that computes shapes of floating-point results only."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(isinstance(leaf, FakeTensor) for leaf in leaves):
            if func is aten._local_scalar_dense.default:
                return 1.0
            if func._schema.is_mutable and isinstance(args[0], Tensor) and not isinstance(args[0], FakeTensor):
                return args[0]  # a real tensor keeps its value
            with self._fake:
                return tree_map_only(FakeTensor, _materialize_integers, func(*args, **kwargs))
        # A mask of numbers can be large; its values do not matter.
        if not leaves or (func is aten._to_copy.default and (kwargs.get("dtype") or torch.long).is_floating_point):
            with self._fake:
                out = func(*args, **kwargs)
            if all(isinstance(leaf, FakeTensor) and leaf.is_floating_point() for leaf in tree_leaves(out)):
                return out
        return func(*args, **kwargs)


def _materialize_integers(tensor: FakeTensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor
    with _disable_current_modes():
        return torch.ones(tensor.shape, dtype=tensor.dtype)


class _Functions(TorchFunctionMode):
    """Function mode for what FakeTensors do not support."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.numpy and isinstance(args[0], FakeTensor):
            return np.zeros(tuple(args[0].shape), dtype=np.float32)
        return func(*args, **kwargs)


def _attend_on_gpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute attention with a kernel whose memory is linear in the length; the CPU has none with dropout."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    bias = None
    if attn_mask is not None:  # the kernel adds a mask of numbers to the scores
        bias = torch.empty(attn_mask.shape, dtype=query.dtype).expand(*query.shape[:3], key.shape[2])
    needs_sum = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    out: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_sum, dropout_p, is_causal, scale=scale
    )[0]
    return out


@contextmanager
def simulate(device_type: str = "cpu") -> Iterator[None]:
    """Return a context within which new floating-point tensors are simulated.

    Args:
        device_type: ``cuda`` to use the attention kernels of a GPU. The tensors are on the CPU in any case.
    """
    swap, attend = torch.utils.swap_tensors, torch.nn.functional.scaled_dot_product_attention
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        stack.enter_context(_Functions())
        stack.enter_context(_Simulation())
        # Module.to() swaps FakeTensors, which torch refuses because of its own weak references to them.
        torch.utils.swap_tensors = _assign
        if device_type == "cuda":
            torch.nn.functional.scaled_dot_product_attention = _attend_on_gpu
        try:
            yield
        finally:
            torch.utils.swap_tensors = swap
            torch.nn.functional.scaled_dot_product_attention = attend


@contextmanager
def simulate_processes(count: int) -> Iterator[DeviceMesh]:
    """Provide a mesh of processes on a CPU in which communication has no effect.

    A collective operation if this process trains together with others; their number must be ``count``.

    Args:
        count: Number of processes; this one is the first, unless it trains together with others.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # the module registers the backend

    # DTensor caches groups by mesh: a mesh with an earlier name would select a group that was destroyed.
    names = (f"simulated_{next(_numbers)}",)
    if dist.is_initialized():
        group = dist.new_group(backend="fake")
        if group.size() != count:
            raise ValueError(f"{group.size()} processes cannot simulate {count}")
        try:
            yield DeviceMesh.from_group(group, "cpu", mesh_dim_names=names)
        finally:
            dist.destroy_process_group(group)
        return
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (count,), mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def _assign(own: Tensor, other: Tensor) -> None:
    own.data = other.data
