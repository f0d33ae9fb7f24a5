"""What every fine-tuning method does: take a backbone, give it back with the right weights movable.

A method is its own parameters: a frozen value without torch at import. Every method has its own
learning-rate range, since a shared rate makes good methods look broken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.config import Frozen

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["FineTuning", "Targets", "target_modules"]

Targets = Literal["attention", "mlp", "all_linear"]


class FineTuning(Frozen, ABC):
    """Base of all fine-tuning methods; a subclass is one row of ``FINETUNING``.

    Args:
        learning_rate: Peak learning rate of the backbone's trained weights.
        head_rate_factor: The head's learning rate over ``learning_rate``; heads start from random
            weights and often want more than a pretrained backbone.
    """

    ranges: ClassVar[dict[str, Any]] = {}
    """Shipped search ranges, as a space writes them, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[str]] = frozenset({"encoder", "decoder"})
    """Which kinds of backbone can carry the method."""
    freezes_backbone: ClassVar[bool] = False
    """Whether the backbone's own weights are never written to, so that trials share one copy of them."""

    learning_rate: float = Field(gt=0, le=1)
    head_rate_factor: float = Field(default=1.0, gt=0)

    def refusal(self, hidden_size: int) -> str | None:
        """Why a backbone of this width cannot carry these parameters; None if it can."""
        return None

    @abstractmethod
    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Freeze, unfreeze or wrap the backbone's weights; the result has the backbone's forward."""

    def rate_scale(self, name: str, layers: int) -> float:
        """The learning rate of the parameter ``name`` over ``learning_rate``, in a stack of ``layers``."""
        return 1.0


def target_modules(backbone: PreTrainedModel, targets: Targets) -> list[str]:
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
        if isinstance(module, (nn.Linear, Conv1D)) and any(part.isdigit() for part in name.split(".")):
            yield name, "attn" in name or "attention" in name
