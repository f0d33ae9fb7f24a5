"""Methods that train few parameters of each layer: scales (IA3), norms, biases, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.finetuning.method import FineTuning
from clinie_core.finetuning.peft_method import AdapterMethod, PeftMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["BitFit", "HeadOnly", "Ia3", "NormTuning"]


class Ia3(AdapterMethod):
    """Trained scales of the outputs of attention modules and the inputs of MLP modules.

    Source: Liu et al. 2022, arXiv 2205.05638.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "targets": {"choose": ["attention", "all_linear"]},
        "learning_rate": {"log": [2.0e-3, 3.0e-2]},
    }

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build an ``IA3Config``."""
        from peft import IA3Config

        names = self.find_modules(backbone)
        feedforward = [] if self.targets == "attention" else self.find_modules(backbone, "mlp")
        return IA3Config(target_modules=names, feedforward_modules=feedforward)


class NormTuning(PeftMethod):
    """Trained normalization layers (Zhao et al. 2023, arXiv 2312.11420)."""

    ranges: ClassVar[dict[str, Any]] = {"learning_rate": {"log": [5.0e-4, 2.0e-2]}}

    def build_peft_config(self, backbone: PreTrainedModel) -> PeftConfig:
        """Build an ``LNTuningConfig`` for every module whose class name contains ``Norm``."""
        import warnings

        from peft import LNTuningConfig

        # PEFT copies the norm and warns that its layer type is not supported.
        warnings.filterwarnings("ignore", message="Unsupported layer type", category=UserWarning)
        norms = [name for name, module in backbone.named_modules() if "Norm" in type(module).__name__]
        return LNTuningConfig(target_modules=norms)


class BitFit(FineTuning):
    """Trained biases (Ben Zaken et al. 2022, arXiv 2106.10199), on encoders only: most decoders have none."""

    ranges: ClassVar[dict[str, Any]] = {"learning_rate": {"log": [5.0e-4, 1.0e-2]}}
    architectures: ClassVar[frozenset[Any]] = frozenset({"encoder"})

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Unfreeze every bias."""
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
        trained: nn.Module = backbone
        return trained


class HeadOnly(FineTuning):
    """Trained head on a frozen backbone: the baseline of every other method."""

    ranges: ClassVar[dict[str, Any]] = {"learning_rate": {"log": [1.0e-3, 3.0e-2]}}
    architectures: ClassVar[frozenset[Any]] = frozenset({"encoder"})

    @property
    def freezes_backbone(self) -> bool:
        """True: only the head is trained."""
        return True

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Freeze the backbone."""
        frozen: nn.Module = backbone.requires_grad_(False)
        return frozen
