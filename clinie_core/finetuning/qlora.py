"""QLoRA: LoRA on weights quantized to four bits (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.finetuning.lora import Lora
from clinie_core.finetuning.quantization import dequantize, is_quantized, quantize_layers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["QLora"]


class QLora(Lora):
    """LoRA on NF4 weights by bitsandbytes.

    The linear modules of the layers are quantized once per backbone and process; trials share the result.
    """

    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    supports_sharding: ClassVar[bool] = False  # a quantized weight cannot be split
    bytes_per_linear_weight: ClassVar[float | None] = 0.55  # four bits, and scales of blocks of 64 weights

    @property
    def preparation(self) -> Hashable:
        """The same for all parameters: every linear module of the layers is quantized."""
        return "nf4"

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Check that bitsandbytes is installed, and the conditions of LoRA."""
        if importlib.util.find_spec("bitsandbytes") is None:
            return "qlora needs bitsandbytes, which is not installed (pip install 'clinie[qlora]')"
        return super().find_conflict(facts)

    def prepare(self, backbone: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        """Quantize the linear modules of the layers."""
        quantize_layers(backbone, device, dtype)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Attach LoRA to the four-bit modules; a backbone that was not prepared is quantized first."""
        quantize_layers(backbone, backbone.device, backbone.dtype)
        return super().apply(backbone)

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """Add the updates to the dequantized weights; the result is a backbone in float32.

        PEFT's own merge would quantize the sum again, which loses most of an update.
        """
        wrapped: Any = backbone
        plain: PreTrainedModel = wrapped.get_base_model()
        for name, module in list(plain.named_modules()):
            layer: Any = module
            base = layer.base_layer if hasattr(layer, "get_delta_weight") else layer
            if name.endswith(".base_layer") or not is_quantized(getattr(base, "weight", None)):
                continue
            merged = dequantize(base)
            if layer is not base:
                merged.weight.data += layer.get_delta_weight(layer.active_adapters[0]).to(merged.weight.dtype)
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, merged)
        del plain.is_loaded_in_4bit
        return plain
