"""Linear modules with weights in four bits (NF4), by bitsandbytes.

Source: Dettmers et al. 2023, arXiv 2305.14314.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from clinie_core.finetuning.peft_method import find_target_modules

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["dequantize", "is_quantized", "list_tensors", "quantize_layers", "share_quantized"]


def quantize_layers(backbone: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Replace the linear modules of a backbone's layers by modules with four-bit weights, in place.

    Modules that are quantized already are not changed, and neither are the meta and fake tensors of a memory estimate,
    because bitsandbytes needs data. GPT-2 stores its weights in Conv1D
    modules, which bitsandbytes does not support.

    Args:
        backbone: The backbone; its other weights are not changed.
        device: Device on which the weights are quantized, and on which they remain.
        dtype: Format of the matrix multiplications.
    """
    import bitsandbytes as bnb
    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensor

    for name in find_target_modules(backbone, "all_linear"):
        old = backbone.get_submodule(name)
        if type(old) is not nn.Linear or old.weight.is_meta or isinstance(old.weight, FakeTensor):
            continue
        with torch.device("meta"):  # without memory for weights that are replaced
            new = bnb.nn.Linear4bit(old.in_features, old.out_features, old.bias is not None, dtype, quant_type="nf4")
        weight = bnb.nn.Params4bit(old.weight.detach(), requires_grad=False, quant_type="nf4")
        new.weight = weight.to(device)
        if old.bias is not None:
            new.bias = nn.Parameter(old.bias.detach().to(device), requires_grad=False)
        # bitsandbytes would repack the weights for prediction on a CPU. This loses precision and gradients.
        new.support_avx512bf16_for_cpu = False
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, new)
    backbone.is_loaded_in_4bit = True  # PEFT reads it


def is_quantized(weight: Tensor | None) -> bool:
    """Return whether a weight is stored in four bits."""
    return getattr(weight, "quant_state", None) is not None


def share_quantized(weight: Any, device: torch.device | None) -> nn.Parameter:
    """Return a four-bit parameter with the memory of another one, or on another device.

    The description of its format is copied, because bitsandbytes changes it in place when a parameter is moved.
    """
    shared: Any = copy.copy(weight)
    shared.quant_state = copy.copy(weight.quant_state)
    shared.quant_state.state2 = copy.copy(weight.quant_state.state2)
    moved: nn.Parameter = shared if device is None or device == weight.device else shared.to(device)
    return moved


def list_tensors(weight: Any) -> list[Tensor]:
    """Return the tensors of a four-bit weight: its data and the scales of its blocks."""
    state = weight.quant_state
    return [weight, state.absmax, *([state.state2.absmax] if state.nested else [])]


def dequantize(module: Any) -> nn.Linear:
    """Return a float32 copy of a linear module with four-bit weights."""
    import bitsandbytes as bnb
    import torch
    from torch import nn

    weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).to(torch.float32)
    plain = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if module.bias is not None:
        plain.bias = nn.Parameter(module.bias.detach().to(torch.float32), requires_grad=False)
    return plain
