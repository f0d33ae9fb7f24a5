"""LoRA family: low-rank updates of frozen linear modules (Hu et al. 2021, arXiv 2106.09685), by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.finetuning.peft_method import AdapterMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["AdaLora", "Dora", "Lora", "RsLora"]


class Lora(AdapterMethod):
    """Low-rank update of each target module.

    Args:
        rank: Rank of the update.
        alpha_over_rank: Scale of the update; PEFT's ``lora_alpha`` is this times ``rank``.
        lora_dropout: Dropout on the update's input.
        mlp_rank_factor: Rank in the MLP divided by ``rank``; it has an effect if ``targets`` is ``all_linear``.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [4, 64]},
        "alpha_over_rank": {"choose": [1, 2]},
        "targets": {"choose": ["attention", "all_linear"]},
        "learning_rate": {"log": [2.0e-4, 3.0e-3]},
    }
    peft_options: ClassVar[dict[str, Any]] = {}
    """Options of PEFT's configuration that the variant sets."""

    rank: int = Field(default=16, ge=1)
    alpha_over_rank: float = Field(default=2.0, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    mlp_rank_factor: float = Field(default=1.0, gt=0, le=8)

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Check that the rank is below the hidden size; see :meth:`FineTuning.find_conflict`."""
        highest = max(self.rank, round(self.rank * self.mlp_rank_factor))
        if highest >= facts.hidden_size:
            return f"rank {highest} is not below the backbone's hidden size {facts.hidden_size}"
        return None

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``LoraConfig``; the MLP's modules may have a different rank."""
        from peft import LoraConfig

        ranks, alphas = {}, {}
        if self.mlp_rank_factor != 1 and self.targets == "all_linear":
            rank = max(1, round(self.rank * self.mlp_rank_factor))
            ranks = dict.fromkeys(self.find_modules(backbone, "mlp"), rank)
            alphas = dict.fromkeys(ranks, max(1, round(self.alpha_over_rank * rank)))
        return LoraConfig(
            r=self.rank,
            lora_alpha=max(1, round(self.alpha_over_rank * self.rank)),
            lora_dropout=self.lora_dropout,
            target_modules=self.find_modules(backbone),
            rank_pattern=ranks,
            alpha_pattern=alphas,
            **self.peft_options,
        )


class RsLora(Lora):
    """LoRA with updates scaled by the square root of the rank (Kalajdzievski 2023, arXiv 2312.03732)."""

    ranges: ClassVar[dict[str, Any]] = {**Lora.ranges, "learning_rate": {"log": [1.0e-4, 1.5e-3]}}
    peft_options: ClassVar[dict[str, Any]] = {"use_rslora": True}


class Dora(Lora):
    """LoRA of a weight's direction, with a separate trained magnitude (Liu et al. 2024, arXiv 2402.09353)."""

    peft_options: ClassVar[dict[str, Any]] = {"use_dora": True}
    reads_weights: ClassVar[bool] = True  # the magnitudes are norms of the weights


class AdaLora(AdapterMethod):
    """Low-rank updates that share a rank budget by importance (Zhang et al. 2023, arXiv 2303.10512).

    Args:
        rank: Mean rank at the end of training.
        start_factor: Rank at the start divided by ``rank``.
        alpha_over_rank: Scale of the update divided by the rank at the start.
        orthogonality: Weight of the penalty on factors that are not orthogonal.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [4, 32]},
        "targets": {"choose": ["attention", "all_linear"]},
        "learning_rate": {"log": [5.0e-4, 1.0e-2]},
    }
    supports_sharding: ClassVar[bool] = False  # the penalty and the ranking of updates need whole factors

    rank: int = Field(default=8, ge=1)
    start_factor: float = Field(default=1.5, ge=1)
    alpha_over_rank: float = Field(default=2.0, gt=0)
    orthogonality: float = Field(default=0.1, ge=0)

    @property
    def start_rank(self) -> int:
        """Rank of every update at the start."""
        return max(self.rank, round(self.rank * self.start_factor))

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Check that the rank is below the hidden size; see :meth:`FineTuning.find_conflict`."""
        if self.start_rank >= facts.hidden_size:
            return f"rank {self.start_rank} is not below the backbone's hidden size {facts.hidden_size}"
        return None

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build an ``AdaLoraConfig``; :meth:`start_training` sets its number of steps."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            target_r=self.rank,
            init_r=self.start_rank,
            lora_alpha=max(1, round(self.alpha_over_rank * self.start_rank)),
            target_modules=self.find_modules(backbone),
            total_step=1_000_000,
            deltaT=10,
        )

    def start_training(self, backbone: nn.Module, steps: int) -> None:
        """Schedule the rank budget: it falls between the first tenth and the last three tenths of all steps."""
        allocator: Any = backbone.base_model.rankallocator  # type: ignore[union-attr]
        config = allocator.peft_config
        config.tinit, config.tfinal = steps // 10, max(1, (3 * steps) // 10)
        allocator.set_total_step(max(steps, config.tinit + config.tfinal + 2))

    def compute_penalty(self, backbone: nn.Module) -> Tensor | None:
        """Return ``orthogonality`` times the mean distance of the factors' Gram matrices from the identity."""
        import torch

        distances = []
        for name, factor in backbone.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = factor @ factor.T if "lora_A" in name else factor.T @ factor  # [rank, rank]
                distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        return self.orthogonality * torch.stack(distances).mean() if distances else None

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """Update the importance scores, and remove the least important ranks on schedule."""
        backbone.base_model.update_and_allocate(step)  # type: ignore[union-attr,operator]
