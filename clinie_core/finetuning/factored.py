"""Further factorizations of a weight's update, each implemented by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.finetuning.peft_method import AdapterMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

__all__ = ["LoHa", "LoKr", "Oft", "Vera"]

TARGETS = {"choose": ["attention", "all_linear"]}


class Vera(AdapterMethod):
    """Trained scales of random projections that all layers share (Kopiczko et al. 2023, arXiv 2310.11454).

    Args:
        rank: Rank of the shared projections.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [64, 512]},
        "targets": TARGETS,
        "learning_rate": {"log": [2.0e-3, 3.0e-2]},
    }

    rank: int = Field(default=256, ge=1)

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``VeraConfig``."""
        from peft import VeraConfig

        return VeraConfig(r=self.rank, target_modules=self.find_modules(backbone))


class LoHa(AdapterMethod):
    """Updates that are Hadamard products of two low-rank matrices (Hyeon-Woo et al. 2021, arXiv 2108.06098).

    Args:
        rank: Rank of each factor.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [4, 32]},
        "targets": TARGETS,
        "learning_rate": {"log": [5.0e-4, 1.0e-2]},
    }

    rank: int = Field(default=8, ge=1)

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``LoHaConfig``."""
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=2 * self.rank, target_modules=self.find_modules(backbone))


class LoKr(AdapterMethod):
    """Updates that are Kronecker products (Edalati et al. 2022, arXiv 2212.10650; LyCORIS).

    Args:
        rank: Rank of the second factor.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "rank": {"log_int": [4, 64]},
        "targets": TARGETS,
        "learning_rate": {"log": [5.0e-4, 1.0e-2]},
    }

    rank: int = Field(default=8, ge=1)

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build a ``LoKrConfig``."""
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=2 * self.rank, target_modules=self.find_modules(backbone))


class Oft(AdapterMethod):
    """Rotations of blocks of a weight's input (Qiu et al. 2023, arXiv 2306.07280).

    Args:
        block_size: Width of a block; it must divide the widths of the backbone and of its MLP.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "block_size": {"choose": [8, 16, 32]},
        "targets": TARGETS,
        "learning_rate": {"log": [2.0e-4, 5.0e-3]},
    }

    block_size: int = Field(default=16, ge=2)

    def find_conflict(self, facts: BackboneFacts) -> str | None:
        """Check that the block size divides the widths; see :meth:`FineTuning.find_conflict`."""
        widths = [facts.hidden_size, *([facts.intermediate_size] if facts.intermediate_size else [])]
        uneven = [width for width in widths if width % self.block_size]
        return f"block_size {self.block_size} does not divide its width {uneven[0]}" if uneven else None

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build an ``OFTConfig``."""
        from peft import OFTConfig

        return OFTConfig(oft_block_size=self.block_size, r=0, target_modules=self.find_modules(backbone))
