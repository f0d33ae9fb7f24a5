"""Bottleneck adapters: a small network after each block (Houlsby et al. 2019, arXiv 1902.00751).

PEFT does not implement this method. The linear module that ends a block's attention or MLP is followed by a
down-projection, GELU, an up-projection and a residual. The up-projection starts at zero, so training starts from
the pretrained model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.finetuning.method import FineTuning
from clinie_core.finetuning.peft_method import find_target_modules, parse_layer_number

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Bottleneck"]


class Bottleneck(FineTuning):
    """Small networks after the MLP of each layer, optionally after the attention too.

    Args:
        width: Width of the bottleneck.
        placement: ``mlp`` as in Pfeiffer et al. 2020 (arXiv 2005.00247), ``both`` as in Houlsby et al.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "width": {"log_int": [8, 128]},
        "placement": {"choose": ["mlp", "both"]},
        "learning_rate": {"log": [3.0e-4, 5.0e-3]},
    }

    width: int = Field(default=48, ge=1)
    placement: Literal["mlp", "both"] = "both"

    @property
    def freezes_backbone(self) -> bool:
        """True: the adapters are separate from the backbone's weights."""
        return True

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Freeze the backbone and add an adapter after the last linear module of each block."""
        from clinie_core.finetuning.bottleneck_module import BottleneckAdapter

        backbone.requires_grad_(False)
        last: dict[tuple[int, str], str] = {}
        for kind in ("mlp",) if self.placement == "mlp" else ("mlp", "attention"):
            for name in find_target_modules(backbone, kind):  # type: ignore[arg-type]  # mypy infers str
                last[parse_layer_number(name), kind] = name
        for name in last.values():
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, BottleneckAdapter(backbone.get_submodule(name), self.width))
        adapted: nn.Module = backbone
        return adapted

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """Return None, because an adapter after a block cannot be merged into its weights."""
        return None
