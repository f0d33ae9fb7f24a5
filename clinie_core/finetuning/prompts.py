"""Soft prompts: trained vectors before the text, with a frozen or a trained backbone.

The study behind clinie found that frozen soft prompts fail on a backbone of 345M parameters and succeed on
billions. Therefore ``backbone`` is a parameter of these methods.
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
    """Trained vectors before the input's embeddings (Lester et al. 2021, arXiv 2104.08691).

    Args:
        prompt_tokens: Number of vectors.
        backbone: Whether the backbone's own weights are frozen or trained too.
        backbone_rate_factor: Learning rate of a trained backbone divided by ``learning_rate``. The vectors start
            from random values and need a far higher rate.
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
        """True if ``backbone`` is ``frozen``."""
        return self.backbone == "frozen"

    @property
    def needs_pretrained_weights(self) -> bool:
        """True if ``backbone`` is ``frozen``."""
        return self.freezes_backbone

    @property
    def virtual_tokens(self) -> int:
        """Number of vectors of the prompt."""
        return self.prompt_tokens

    @property
    def prepended_tokens(self) -> int:
        """Number of vectors of the prompt; all precede the input."""
        return self.prompt_tokens

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``PromptTuningConfig``."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(num_virtual_tokens=self.prompt_tokens)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the backbone with PEFT, and unfreeze it if ``backbone`` is ``unfrozen``."""
        wrapped = super().apply(backbone)
        if self.backbone == "unfrozen":
            backbone.requires_grad_(True)
        return wrapped

    def get_lr_factor(self, name: str, layers: int) -> float:
        """Return 1 for the prompt and ``backbone_rate_factor`` for the backbone's own weights."""
        return 1.0 if "prompt_encoder" in name else self.backbone_rate_factor


class PTuning(PromptTuning):
    """Vectors that a small trained network computes (Liu et al. 2021, arXiv 2103.10385).

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
        """Build a ``PromptEncoderConfig``."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            num_virtual_tokens=self.prompt_tokens,
            encoder_hidden_size=self.encoder_hidden,
            encoder_reparameterization_type="MLP",
        )


class PrefixTuning(PeftMethod):
    """Trained keys and values that every layer of a decoder attends to (Li and Liang 2021, arXiv 2101.00190).

    Args:
        prompt_tokens: Number of keys and values in each layer.
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
        """Number of positions of the prefix."""
        return self.prompt_tokens

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``PrefixTuningConfig``."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.prompt_tokens)
