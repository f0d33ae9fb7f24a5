"""Further factorizations of a weight's update, each implemented by PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.errors import fail
from clinie_core.finetuning.peft_method import AdapterMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["LoHa", "LoKr", "Oft", "Vera"]

SAMPLE_SIZE = 16
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

        warnings.filterwarnings("ignore", message="Specified to not save vera_A and vera_B", category=UserWarning)
        # The projections are drawn again when a model is loaded: they are far larger than the trained scales.
        return VeraConfig(r=self.rank, target_modules=self.find_modules(backbone), save_projection=False)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the backbone, with a sample of the projections that checkpoints contain."""
        wrapped: Any = super().apply(backbone)
        for projections in (wrapped.base_model.vera_A, wrapped.base_model.vera_B):
            projections["default"] = projections["default"].to(backbone.dtype)  # that of frozen weights
        sample = wrapped.base_model.vera_A["default"].flatten()[:SAMPLE_SIZE]
        wrapped.register_buffer("projection_sample", sample.detach().clone())
        wrapped.register_load_state_dict_pre_hook(_check_projections)
        whole: nn.Module = wrapped
        return whole


def _check_projections(module: Any, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Check that a checkpoint was trained with the projections that this version of torch draws."""
    saved = state.get(f"{prefix}projection_sample")
    own = module.projection_sample
    if saved is not None and not saved.to(own).allclose(own, rtol=1e-2):
        fail(
            "finetuning.vera",
            "the checkpoint was trained with other random projections",
            remedy="use the versions of torch and peft that wrote it",
        )


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
