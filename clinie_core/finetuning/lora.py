"""LoRA: low-rank updates beside frozen linear modules (Hu et al. 2021, arXiv 2106.09685), by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.finetuning.method import FineTuning, Targets, target_modules

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Lora"]


class Lora(FineTuning):
    """Train an update of rank ``rank`` for each target module.

    Args:
        rank: Rank of the update.
        alpha_over_rank: The update's scale; PEFT's ``lora_alpha`` is this times ``rank``.
        targets: Which linear modules have an update.
        lora_dropout: Dropout on the update's input.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [4, 64]},
        "alpha_over_rank": {"choose": [1, 2]},
        "targets": {"choose": ["attention", "all_linear"]},
        "learning_rate": {"log": [2.0e-4, 3.0e-3]},
    }
    freezes_backbone: ClassVar[bool] = True

    rank: int = Field(default=16, ge=1)
    alpha_over_rank: float = Field(default=2.0, gt=0)
    targets: Targets = "all_linear"
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)

    def refusal(self, hidden_size: int) -> str | None:
        """A rank as wide as the model is no longer low."""
        if self.rank >= hidden_size:
            return f"rank {self.rank} is not below the backbone's hidden size {hidden_size}"
        return None

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the target modules by PEFT; everything else is frozen."""
        from peft import LoraConfig, get_peft_model

        wrapped: nn.Module = get_peft_model(
            backbone,
            LoraConfig(
                r=self.rank,
                lora_alpha=round(self.alpha_over_rank * self.rank),
                lora_dropout=self.lora_dropout,
                target_modules=target_modules(backbone, self.targets),
            ),
        )
        return wrapped
