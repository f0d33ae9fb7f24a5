"""Full fine-tuning: all weights are trained, or those above a number of frozen layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.finetuning.method import FineTuning
from clinie_core.finetuning.peft_method import parse_layer_number

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Full"]


class Full(FineTuning):
    """Trained weights of the backbone itself.

    Args:
        frozen_layers: Number of lowest layers that are frozen together with the embeddings; 0 trains all weights.
        layerwise_lr_decay: Factor of the learning rate from each layer to the one below it (Howard and Ruder
            2018, arXiv 1801.06146); 1 for the same rate in all layers.
    """

    ranges: ClassVar[dict[str, Any]] = {"learning_rate": {"log": [1.0e-5, 5.0e-4]}}

    frozen_layers: int = Field(default=0, ge=0)
    layerwise_lr_decay: float = Field(default=1.0, gt=0, le=1)

    @property
    def needs_pretrained_weights(self) -> bool:
        """False: the backbone can be trained from random weights."""
        return False

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Unfreeze everything at or above ``frozen_layers``."""
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(self.frozen_layers == 0 or parse_layer_number(name) >= self.frozen_layers)
        trained: nn.Module = backbone
        return trained

    def get_lr_factor(self, name: str, layers: int) -> float:
        """Return ``layerwise_lr_decay`` to the power of the distance from the top layer."""
        return self.layerwise_lr_decay ** max(0, layers - 1 - parse_layer_number(name))
