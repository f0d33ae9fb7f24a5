"""Methods that Hugging Face PEFT carries out; a row is its parameters and one PEFT configuration."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from clinie_core.finetuning.method import FineTuning

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["AdapterMethod", "PeftMethod", "Targets", "find_target_modules", "parse_layer_number"]

Targets = Literal["attention", "mlp", "all_linear"]


class PeftMethod(FineTuning):
    """Base of the methods that PEFT carries out; everything but what PEFT adds is frozen."""

    @property
    def freezes_backbone(self) -> bool:
        """PEFT writes beside the backbone's weights, never into them."""
        return True

    @abstractmethod
    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """PEFT's configuration for a backbone."""

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the backbone by PEFT."""
        from peft import get_peft_model

        config = self.build_peft_config(backbone)
        # PEFT's wrapper for a task knows where soft prompts go; ours are hidden states or next tokens.
        config.task_type = "FEATURE_EXTRACTION" if backbone.get_output_embeddings() is None else "CAUSAL_LM"
        # PEFT finds out itself that GPT-2 keeps its weights transposed, and warns of it.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        wrapped: nn.Module = get_peft_model(backbone, config)
        return wrapped

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """What PEFT can add to the weights that it stands beside; a soft prompt stands beside none."""
        merge = getattr(getattr(backbone, "base_model", None), "merge_and_unload", None)
        plain: PreTrainedModel | None = merge() if merge is not None else None
        return plain


class AdapterMethod(PeftMethod):
    """Base of the methods that attach something to linear modules.

    Args:
        targets: Which linear modules.
        layers_from: Share of the depth, from the bottom, below which layers have no adapter.
        layers_to: Share of the depth above which they have none.
    """

    target_choices: ClassVar[dict[str, Any]] = {"choose": ["attention", "all_linear"]}
    """The shipped range of ``targets``."""

    targets: Targets = "all_linear"
    layers_from: float = Field(default=0.0, ge=0, lt=1)
    layers_to: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _some_layers(self) -> AdapterMethod:
        if self.layers_from >= self.layers_to:
            raise ValueError("layers_from must be below layers_to")
        return self

    def find_modules(self, backbone: PreTrainedModel, targets: Targets | None = None) -> list[str]:
        """Full names of the modules that the method attaches to."""
        names = find_target_modules(backbone, targets or self.targets)
        depth = int(backbone.config.num_hidden_layers)
        first, last = (
            int(self.layers_from * depth),
            max(int(self.layers_from * depth) + 1, round(self.layers_to * depth)),
        )
        return [name for name in names if first <= parse_layer_number(name) < last]


def find_target_modules(backbone: PreTrainedModel, targets: Targets) -> list[str]:
    """Names of the linear modules in the backbone's layers that a method attaches to.

    The names are found in the backbone itself, so any architecture works: a module with
    "attn" or "attention" in its path belongs to the attention, any other to the MLP.

    Returns:
        Full names, in the backbone's order.

    Raises:
        ValueError: If the backbone has no such module.
    """
    names = [
        name
        for name, is_attention in _linear_modules(backbone)
        if targets == "all_linear" or is_attention == (targets == "attention")
    ]
    if not names:
        raise ValueError(f"{type(backbone).__name__} has no linear modules for targets {targets!r}")
    return names


def _linear_modules(backbone: PreTrainedModel) -> Iterator[tuple[str, bool]]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in backbone.named_modules():
        # Only the repeated layers, which have a number in their path: no pooler, no embedding projection.
        if isinstance(module, (nn.Linear, Conv1D)) and parse_layer_number(name) >= 0:
            yield name, "attn" in name or "attention" in name


def parse_layer_number(name: str) -> int:
    """The layer in a module's or parameter's path; -1 for what belongs to none, such as the embeddings."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)
