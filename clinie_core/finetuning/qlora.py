"""QLoRA: LoRA on weights quantized to four bits (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.errors import fail
from clinie_core.finetuning.lora import Lora
from clinie_core.finetuning.peft_method import find_target_modules

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["QLora"]


class QLora(Lora):
    """LoRA on NF4 weights by bitsandbytes; requires an NVIDIA GPU.

    The linear modules of the layers are quantized when the model first moves to the GPU.
    """

    needs_cuda: ClassVar[bool] = True
    supports_sharding: ClassVar[bool] = False  # a quantized weight cannot be split
    architectures: ClassVar[frozenset[Any]] = frozenset({"encoder", "decoder"})

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Check that bitsandbytes is installed, and the conditions of LoRA."""
        if importlib.util.find_spec("bitsandbytes") is None:
            return "qlora needs bitsandbytes, which is not installed (pip install bitsandbytes)"
        return super().find_conflict(facts)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Replace the linear modules of the layers by four-bit modules, then attach LoRA.

        Raises:
            InputError: If there is no NVIDIA GPU.
        """
        import torch
        from torch import nn

        if not torch.cuda.is_available():
            fail(
                "space.finetuning.qlora",
                "no NVIDIA GPU is available",
                remedy="use lora, which trains the same weights, or a machine with a GPU",
            )
        import bitsandbytes as bnb

        for name in find_target_modules(backbone, "all_linear"):
            old = backbone.get_submodule(name)
            if not isinstance(old, nn.Linear):  # GPT-2 stores its weights in Conv1D modules
                continue
            bias = old.bias is not None
            new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias, torch.bfloat16, quant_type="nf4")
            new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4")
            if bias:
                new.bias = nn.Parameter(old.bias.detach(), requires_grad=False)
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, new)
        return super().apply(backbone)

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """Return None, because an update cannot be merged into four-bit weights."""
        return None
