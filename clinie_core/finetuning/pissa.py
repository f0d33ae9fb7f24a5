"""PiSSA: LoRA that starts from the principal singular vectors (Meng et al. 2024, arXiv 2404.02948).

The paper subtracts the first product of the factors from the weight. Here the weight is not changed: a second, frozen
LoRA subtracts that product in each forward pass. Trials therefore share the backbone, and a checkpoint consists of two
LoRA updates of the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.finetuning.lora import Lora
from clinie_core.finetuning.peft_method import find_target_modules

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["Pissa"]

TRAINED, INITIAL = "default", "initial"
"""PEFT's names of the two updates."""
ITERATIONS = 4
"""Power iterations of the randomized decomposition; PEFT calls this ``pissa_niter_4``."""


class Pissa(Lora):
    """LoRA that starts from the principal singular vectors of the weight."""

    ranges: ClassVar[dict[str, Any]] = {
        **Lora.ranges,
        "alpha_over_rank": {"choose": [1]},
        "learning_rate": {"log": [5.0e-5, 1.0e-3]},
    }

    @property
    def preparation(self) -> Hashable:
        """The parameters that determine the singular vectors."""
        return "pissa", self.rank, self.mlp_rank_factor, self.targets

    def prepare(self, backbone: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        """Compute the principal factors of all target modules, on the device, and store them as buffers."""
        mlp = set(find_target_modules(backbone, "mlp")) if self.targets == "all_linear" else set()
        for name in find_target_modules(backbone, self.targets):
            module = backbone.get_submodule(name)
            if not hasattr(module, "principal_a"):
                rank = max(1, round(self.rank * self.mlp_rank_factor)) if name in mlp else self.rank
                a, b = _factorize(module, rank, device)
                module.register_buffer("principal_a", a, persistent=False)
                module.register_buffer("principal_b", b, persistent=False)

    def apply(self, backbone: PreTrainedModel) -> nn.Module:
        """Attach both updates; the factors of a backbone that was not prepared are computed first."""
        self.prepare(backbone, backbone.device, backbone.dtype)
        frozen: Any = self.build_peft_config(backbone)
        frozen.lora_dropout = 0.0
        wrapped: Any = super().apply(backbone)
        frozen.task_type = wrapped.peft_config[TRAINED].task_type
        wrapped.add_adapter(INITIAL, frozen)
        wrapped.base_model.set_adapter([TRAINED, INITIAL])
        for layer in _iter_layers(wrapped):
            base, scaling = layer.get_base_layer(), layer.scaling[TRAINED]
            layer.scaling[INITIAL] = -scaling
            for adapter in (TRAINED, INITIAL):
                layer.lora_A[adapter].weight.data.copy_(base.principal_a / math.sqrt(scaling))
                layer.lora_B[adapter].weight.data.copy_(base.principal_b / math.sqrt(scaling))
            layer.lora_A[INITIAL].requires_grad_(False)
            layer.lora_B[INITIAL].requires_grad_(False)
        for module in backbone.modules():
            if hasattr(module, "principal_a"):
                del module.principal_a, module.principal_b
        whole: nn.Module = wrapped
        return whole


def _iter_layers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if hasattr(module, "lora_A") and INITIAL in module.lora_A:  # type: ignore[operator]
            yield module


def _factorize(module: nn.Module, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return factors of the best approximation of a linear module's weight.

    Args:
        module: A linear module.
        rank: Rank of the approximation; ranks beyond that of the weight are zero.
        device: Device of the computation.

    Returns:
        The factors ``[rank, in]`` and ``[out, rank]`` in float32; their product ``b @ a`` approximates the weight.
    """
    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensor

    weight = module.weight.detach()  # type: ignore[operator]
    if not isinstance(module, nn.Linear):  # Conv1D of GPT-2 stores the transposed weight
        weight = weight.T
    outputs, inputs = weight.shape
    if weight.is_meta or isinstance(weight, FakeTensor):
        return weight.new_empty(rank, inputs), weight.new_empty(outputs, rank)
    kept = min(rank, inputs, outputs)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # trials with different seeds share the factors
        left, values, right = torch.svd_lowrank(weight.to(device, torch.float32), q=kept, niter=ITERATIONS)
    a, b = values.sqrt().unsqueeze(1) * right.T, left * values.sqrt()
    return nn.functional.pad(a, (0, 0, 0, rank - kept)), nn.functional.pad(b, (0, rank - kept))
