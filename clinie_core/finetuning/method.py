"""Base class of fine-tuning methods: select, freeze or extend the weights of a backbone.

A method is a frozen value that holds its own parameters; its module does not import torch. Every method has its own
learning-rate range, because one shared range would favour some methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.config import FrozenModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from clinie_core.backbones.facts import Architecture

__all__ = ["FineTuning"]


class FineTuning(FrozenModel, ABC):
    """Base class of fine-tuning methods; every subclass is one row of ``FINETUNING``.

    Args:
        learning_rate: Peak learning rate of the backbone's trained weights.
        head_rate_factor: Learning rate of the head divided by ``learning_rate``. A head starts from random weights
            and often needs a higher rate than a pretrained backbone.
    """

    ranges: ClassVar[dict[str, Any]] = {}
    """Default search ranges in the syntax of a space, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[Architecture]] = frozenset({"encoder", "decoder"})
    """Architectures of backbones that the method supports."""
    bytes_per_linear_weight: ClassVar[float | None] = None
    """Memory of each weight in the linear modules of the layers, if the method stores them in its own format."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Optional packages that a trained model of this method needs."""
    supports_recomputation: ClassVar[bool] = True
    """Whether activations may be recomputed in the backward pass (gradient checkpointing)."""
    reads_weights: ClassVar[bool] = False
    """Whether :meth:`apply` computes new weights from the values of the backbone's own."""
    supports_sharding: ClassVar[bool] = True
    """Whether the weights may be sharded over several processes."""

    learning_rate: float = Field(gt=0, le=1)
    head_rate_factor: float = Field(default=1.0, gt=0)

    @property
    def freezes_backbone(self) -> bool:
        """True if the backbone's own weights never change, so that trials can share one copy of them."""
        return False

    @property
    def needs_pretrained_weights(self) -> bool:
        """True if most weights of the backbone never change, so that they have to be pretrained."""
        return True

    @property
    def virtual_tokens(self) -> int:
        """Number of positions that the method takes from every input."""
        return 0

    @property
    def prepended_tokens(self) -> int:
        """Number of virtual tokens before the input's own tokens; they shift its positions."""
        return 0

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Return the reason why a backbone does not support these parameters; None if it does.

        Args:
            facts: Facts about the backbone.
        """
        return None

    @property
    def preparation(self) -> Hashable:
        """Key of the result of :meth:`prepare`, which trials with equal keys share; None for no preparation."""
        return None

    def prepare(self, backbone: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        """Change a frozen backbone into the form that several trials share; called once for all of them.

        Args:
            backbone: The backbone with the weights of its files; modules may be replaced, but not changed in place.
            device: Device of the trials.
            dtype: Format of the frozen weights in the trials.
        """
        return

    @abstractmethod
    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Freeze, unfreeze or wrap the backbone's weights.

        Args:
            backbone: The backbone; it is changed in place.

        Returns:
            A module with the backbone's ``forward``.
        """

    def merge(self, backbone: nn.Module) -> PreTrainedModel | None:
        """Merge the trained weights into a plain backbone.

        Args:
            backbone: A module that :meth:`apply` returned; it may be changed.

        Returns:
            The merged backbone; None if the method adds weights that cannot be merged.
        """
        plain: PreTrainedModel = backbone  # by default the backbone is not wrapped
        return plain

    def start_training(self, backbone: nn.Module, steps: int) -> None:
        """Prepare the method for training; called once, before the first optimizer step.

        Args:
            backbone: A module that :meth:`apply` returned.
            steps: Number of optimizer steps of the trial.
        """
        return

    def compute_penalty(self, backbone: nn.Module) -> Tensor | None:
        """Return the method's addition to the mean loss of a step, a scalar; None for no addition."""
        return None

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """Update the weights after an optimizer step, before the gradients are reset.

        Args:
            backbone: A module that :meth:`apply` returned.
            step: 1-based index of the step.
        """
        return

    def get_lr_factor(self, name: str, layers: int) -> float:
        """Return the learning rate of a backbone parameter divided by ``learning_rate``.

        Args:
            name: Name of the parameter.
            layers: Number of layers of the backbone.
        """
        return 1.0
