"""Soft prompts: learned vectors before the text, with the backbone frozen or not.

The study behind clinie found that frozen soft prompts fail on a backbone of 345M parameters and
succeed on billions, hence ``backbone`` as a parameter beside the prompt's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.finetuning.peft_method import PeftMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["PTuning", "PrefixTuning", "PromptTuning"]


class PromptTuning(PeftMethod):
    """Train vectors that stand before the input's embeddings (Lester et al. 2021, arXiv 2104.08691).

    Args:
        prompt_tokens: How many vectors.
        backbone: Whether the backbone's own weights stay frozen or move too.
        backbone_rate_factor: The backbone's learning rate over ``learning_rate`` where it moves;
            vectors without meaning at first want a far higher one.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "prompt_tokens": {"log_int": [4, 32]},
        "backbone": {"choose": ["frozen", "unfrozen"]},
        "learning_rate": {"log": [1.0e-3, 3.0e-2]},
    }

    prompt_tokens: int = Field(default=10, ge=1)
    backbone: Literal["frozen", "unfrozen"] = "frozen"
    backbone_rate_factor: float = Field(default=0.02, gt=0, le=1)

    @property
    def freezes_backbone(self) -> bool:
        """As its parameter says."""
        return self.backbone == "frozen"

    @property
    def virtual_tokens(self) -> int:
        """The prompt's."""
        return self.prompt_tokens

    @property
    def prepended_tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """A ``PromptTuningConfig``."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(num_virtual_tokens=self.prompt_tokens)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap by PEFT, and let the backbone move if it should."""
        wrapped = super().apply(backbone)
        if self.backbone == "unfrozen":
            backbone.requires_grad_(True)
        return wrapped

    def get_lr_factor(self, name: str, layers: int) -> float:
        """The backbone's own weights move more slowly than the prompt."""
        return 1.0 if "prompt_encoder" in name else self.backbone_rate_factor


class PTuning(PromptTuning):
    """Train the vectors through a small network (Liu et al. 2021, arXiv 2103.10385).

    Args:
        encoder_hidden: Width of that network.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "prompt_tokens": {"log_int": [4, 32]},
        "backbone": {"choose": ["frozen", "unfrozen"]},
        "learning_rate": {"log": [3.0e-4, 1.0e-2]},
    }

    encoder_hidden: int = Field(default=128, ge=1)

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """A ``PromptEncoderConfig``."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            num_virtual_tokens=self.prompt_tokens,
            encoder_hidden_size=self.encoder_hidden,
            encoder_reparameterization_type="MLP",
        )


class PrefixTuning(PeftMethod):
    """Train keys and values that every layer of a decoder attends to (Li and Liang 2021, arXiv 2101.00190).

    Args:
        prompt_tokens: How many.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "prompt_tokens": {"log_int": [4, 32]},
        "learning_rate": {"log": [1.0e-3, 3.0e-2]},
    }
    architectures: ClassVar[frozenset[Any]] = frozenset({"decoder"})
    supports_recomputation: ClassVar[bool] = False  # the second forward would lack the prefix, a key-value cache

    prompt_tokens: int = Field(default=10, ge=1)

    @property
    def virtual_tokens(self) -> int:
        """The prefix's."""
        return self.prompt_tokens

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """A ``PrefixTuningConfig``."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.prompt_tokens)
