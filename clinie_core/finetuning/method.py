"""What every fine-tuning method does: take a backbone, give it back with the right weights movable.

A method is its own parameters: a frozen value without torch at import. Every method has its own
learning-rate range, since a shared rate makes good methods look broken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.config import FrozenModel

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from clinie_core.backbones.facts import Architecture

__all__ = ["FineTuning"]


class FineTuning(FrozenModel, ABC):
    """Base of all fine-tuning methods; a subclass is one row of ``FINETUNING``.

    Args:
        learning_rate: Peak learning rate of the backbone's trained weights.
        head_rate_factor: The head's learning rate over ``learning_rate``; heads start from random
            weights and often want more than a pretrained backbone.
    """

    ranges: ClassVar[dict[str, Any]] = {}
    """Shipped search ranges, as a space writes them, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[Architecture]] = frozenset({"encoder", "decoder"})
    """Which kinds of backbone can carry the method."""
    needs_cuda: ClassVar[bool] = False
    """Whether the method works on NVIDIA GPUs alone."""
    supports_recomputation: ClassVar[bool] = True
    """Whether the backbone's activations may be computed again in the backward pass."""
    supports_sharding: ClassVar[bool] = True
    """Whether several processes may share its weights out between them."""

    learning_rate: float = Field(gt=0, le=1)
    head_rate_factor: float = Field(default=1.0, gt=0)

    @property
    def freezes_backbone(self) -> bool:
        """Whether the backbone's own weights are never written to, so that trials share one copy of them."""
        return False

    @property
    def virtual_tokens(self) -> int:
        """Positions that the method takes from every input."""
        return 0

    @property
    def prepended_tokens(self) -> int:
        """Those of them that stand before the input's own, and so shift its places."""
        return 0

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Why a backbone cannot carry these parameters; None if it can."""
        return None

    @abstractmethod
    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Freeze, unfreeze or wrap the backbone's weights; the result has the backbone's forward."""

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """What :meth:`apply` made, as a plain backbone with everything in its own weights; may change its argument.

        Returns:
            None if the method adds something that is no part of a weight.
        """
        plain: PreTrainedModel = backbone  # a method that moves weights wraps nothing
        return plain

    def start_training(self, backbone: nn.Module, steps: int) -> None:
        """Learn how many optimizer steps the trial has, before the first."""
        return

    def compute_penalty(self, backbone: nn.Module) -> Tensor | None:
        """What the method adds to the mean loss of a step, a scalar; None for nothing."""
        return None

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """Act on the weights after an optimizer step, numbered from 1, while their gradients are there."""
        return

    def get_lr_factor(self, name: str, layers: int) -> float:
        """The learning rate of the parameter ``name`` over ``learning_rate``, in a stack of ``layers``."""
        return 1.0
