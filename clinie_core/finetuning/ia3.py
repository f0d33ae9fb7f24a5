"""IA3: learned scales on activations of frozen modules (Liu et al. 2022, arXiv 2205.05638), by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.finetuning.method import FineTuning, Targets, target_modules

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Ia3"]


class Ia3(FineTuning):
    """Train one scale per output of attention modules and per input of MLP modules.

    Args:
        targets: Which linear modules are scaled.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "targets": {"choose": ["attention", "all_linear"]},
        "learning_rate": {"log": [2.0e-3, 3.0e-2]},
    }
    freezes_backbone: ClassVar[bool] = True

    targets: Targets = "all_linear"

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Wrap the target modules by PEFT; everything else is frozen."""
        from peft import IA3Config, get_peft_model

        names = target_modules(backbone, self.targets)
        feedforward = [] if self.targets == "attention" else target_modules(backbone, "mlp")
        wrapped: nn.Module = get_peft_model(backbone, IA3Config(target_modules=names, feedforward_modules=feedforward))
        return wrapped
