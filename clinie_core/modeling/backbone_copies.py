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

__all__ = ["copy_backbone", "defer_conversion", "get_deferred_weight", "measure_weights", "prepare_backbone"]

ORIGINAL = "clinie_original"
"""Attribute of a parameter with the weight that it replaces."""

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


def defer_conversion(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Give a model's weights a dtype without converting them, in place.

    Each weight of another dtype is replaced by one that has its shape, but the memory of a single number.
    :func:`get_deferred_weight` returns the original.

    Args:
        backbone: The model; its values must not be used before they are restored.
        dtype: Format of the floating-point weights.
    """
    replaced: dict[int, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_floating_point() and parameter.dtype != dtype:
                if id(parameter) not in replaced:
                    empty = torch.zeros((), dtype=dtype).expand(parameter.shape)
                    replaced[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
                    setattr(replaced[id(parameter)], ORIGINAL, parameter)
                module.register_parameter(name, replaced[id(parameter)])


def get_deferred_weight(parameter: nn.Parameter) -> Tensor:
    """Return the weight that :func:`defer_conversion` replaced by a parameter; any other parameter itself."""
    original: Tensor = getattr(parameter, ORIGINAL, parameter)
    return original.detach()


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
