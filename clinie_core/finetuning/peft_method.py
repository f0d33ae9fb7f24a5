"""Methods that Hugging Face PEFT implements: parameters and a PEFT configuration."""

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
    """Base class of methods that PEFT implements; everything that PEFT does not add is frozen."""

    @property
    def freezes_backbone(self) -> bool:
        """True: PEFT adds weights and does not change the backbone's own."""
        return True

    @abstractmethod
    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build PEFT's configuration for a backbone."""

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the backbone with PEFT."""
        from peft import get_peft_model

        config = self.build_peft_config(backbone)
        # The task type selects PEFT's wrapper; the outputs are hidden states or next tokens.
        config.task_type = "FEATURE_EXTRACTION" if backbone.get_output_embeddings() is None else "CAUSAL_LM"
        # PEFT warns when it detects the transposed weights of GPT-2.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        wrapped: nn.Module = get_peft_model(backbone, config)
        return wrapped

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """Merge the added weights with PEFT; return None for soft prompts, which cannot be merged."""
        merge = getattr(getattr(backbone, "base_model", None), "merge_and_unload", None)
        plain: PreTrainedModel | None = merge() if merge is not None else None
        return plain


class AdapterMethod(PeftMethod):
    """Base class of methods that adapt linear modules.

    Args:
        targets: Linear modules to adapt.
        layers_from: Layers below this share of the layers, counted from the bottom, have no adapter.
        layers_to: Layers above this share of the layers have no adapter.
    """

    target_choices: ClassVar[dict[str, Any]] = {"choose": ["attention", "all_linear"]}
    """Default search range of ``targets``."""

    targets: Targets = "all_linear"
    layers_from: float = Field(default=0.0, ge=0, lt=1)
    layers_to: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _check_layers(self) -> AdapterMethod:
        if self.layers_from >= self.layers_to:
            raise ValueError("layers_from must be below layers_to")
        return self

    def find_modules(self, backbone: PreTrainedModel, targets: Targets | None = None) -> list[str]:
        """Return the full names of the modules to adapt.

        Args:
            backbone: The backbone.
            targets: Linear modules to select; by default the method's own ``targets``.
        """
        names = find_target_modules(backbone, targets or self.targets)
        depth = int(backbone.config.num_hidden_layers)
        first, last = (
            int(self.layers_from * depth),
            max(int(self.layers_from * depth) + 1, round(self.layers_to * depth)),
        )
        return [name for name in names if first <= parse_layer_number(name) < last]


def find_target_modules(backbone: PreTrainedModel, targets: Targets) -> list[str]:
    """Find the linear modules of a backbone's layers that a method adapts.

    The names are read from the backbone itself, so any architecture is supported. A module with "attn" or "attention"
    in its path belongs to the attention, any other to the MLP.

    Args:
        backbone: The backbone.
        targets: Linear modules to select.

    Returns:
        Full names, in the backbone's order.

    Raises:
        ValueError: If the backbone has no such module.
    """
    names = [
        name
        for name, is_attention in _iter_linear_modules(backbone)
        if targets == "all_linear" or is_attention == (targets == "attention")
    ]
    if not names:
        raise ValueError(f"{type(backbone).__name__} has no linear modules for targets {targets!r}")
    return names


def _iter_linear_modules(backbone: PreTrainedModel) -> Iterator[tuple[str, bool]]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in backbone.named_modules():
        # The paths of layers contain a number; poolers and embedding projections have none and are skipped.
        if isinstance(module, (nn.Linear, Conv1D)) and parse_layer_number(name) >= 0:
            yield name, "attn" in name or "attention" in name


def parse_layer_number(name: str) -> int:
    """Return the 0-based layer in the path of a module or parameter.

    A path outside the layers, such as the embeddings, returns -1.
    """
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)
