"""Copies of a pretrained backbone: on another device, in another dtype, or with shared weights."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from clinie_core.finetuning.method import FineTuning
from clinie_core.finetuning.quantization import is_quantized, list_tensors, share_quantized

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["convert_weights", "copy_backbone", "measure_weights", "prepare_backbone"]

Module = TypeVar("Module", bound=nn.Module)


def copy_backbone(
    backbone: Module,
    *,
    share_weights: bool,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Module:
    """Copy a model's modules, and its weights unless they can be shared.

    Each weight is copied straight to its target, without a second copy on the source's device. A shared weight is a
    separate parameter on the same memory. Moving it, unfreezing or replacing it does not affect the original; only an
    in-place change would.

    Args:
        backbone: The model; it is not changed.
        share_weights: Whether weights that already have the wanted device and dtype are shared. All weights of the
            copy are then frozen.
        device: Device of the copy; None for that of each weight.
        dtype: Format of the copy's floating-point weights; None for that of each weight. Buffers keep their format.
    """
    memo: dict[int, object] = {}
    for parameter in backbone.parameters():
        if is_quantized(parameter):  # always frozen
            memo[id(parameter)] = share_quantized(parameter, device)
            continue
        moved = _move(parameter.detach(), device, dtype, share=share_weights)
        memo[id(parameter)] = nn.Parameter(moved, requires_grad=parameter.requires_grad and not share_weights)
    for buffer in backbone.buffers():
        memo[id(buffer)] = _move(buffer, device, None, share=False)
    return copy.deepcopy(backbone, memo)


def _move(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None, *, share: bool) -> Tensor:
    """Return a tensor on a device and in a dtype; a new one unless sharing is allowed and nothing changes."""
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.to(device=device or tensor.device, dtype=wanted, copy=not share)


def convert_weights(backbone: Module, dtype: torch.dtype) -> Module:
    """Convert the floating-point weights of a model to a dtype, in place, and return the model."""
    for parameter in backbone.parameters():
        parameter.data = _move(parameter.data, None, dtype, share=True)
    return backbone


def prepare_backbone(
    pretrained: PreTrainedModel, method: FineTuning, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """Return a backbone that a method freezes in the form that trials share, on their device.

    Args:
        pretrained: The backbone in the dtype of its files; it is not changed.
        method: The fine-tuning method.
        device: Device of the trials.
        dtype: Format of the frozen weights.
    """
    backbone = copy_backbone(pretrained, share_weights=True)
    method.prepare(backbone, device, dtype)
    return copy_backbone(backbone, share_weights=True, device=device, dtype=dtype)


def measure_weights(model: nn.Module) -> dict[Hashable, int]:
    """Return the size in bytes of each weight and buffer of a model, by its address; shared memory has one address."""
    tensors = [t for p in model.parameters() for t in (list_tensors(p) if is_quantized(p) else [p])]
    tensors += model.buffers()
    return {(str(t.device), t.data_ptr()): t.numel() * t.element_size() for t in tensors}
