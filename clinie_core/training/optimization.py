"""Optimizer, learning-rate schedule and weight averaging of one trial."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from clinie_core.config import TrialConfig
from clinie_core.errors import fail
from clinie_core.finetuning.method import FineTuning
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.parallel import local_part

__all__ = ["MovingAverage", "build_optimizer"]


def build_optimizer(
    config: TrialConfig, method: FineTuning, model: ExtractionModel, steps: int
) -> tuple[AdamW, LambdaLR]:
    """AdamW over the trainable parameters, with a rate that rises in a line and then falls to zero.

    Vectors (biases, norms, IA3's scales) have no weight decay. The method scales the rate by layer.

    Args:
        config: Weight decay, warm-up and schedule.
        method: The peak learning rate, the head's factor and the scale by layer.
        model: Its trainable parameters are optimized.
        steps: Optimizer steps in the whole trial.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    trunk = getattr(model.backbone, "config", None)
    layers = int(getattr(trunk, "num_hidden_layers", 1) or 1)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_head = name.startswith("heads.")
            rate = method.learning_rate * (method.head_rate_factor if in_head else method.rate_scale(name, layers))
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        fail("finetuning", f"{config.finetuning.name} leaves nothing to train in this model", allowed="another method")
    optimizer = AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()],
        fused=True,
    )
    rising = max(1, round(config.warmup_ratio * steps))

    def scale(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        share = min(1.0, (step - rising) / max(1, steps - rising))
        return (1 + math.cos(math.pi * share)) / 2 if config.schedule == "cosine" else 1 - share

    return optimizer, LambdaLR(optimizer, scale)


class MovingAverage:
    """An exponential moving average of the trainable weights.

    Args:
        model: The model whose weights are followed.
        decay: Weight of the old average at each step; early steps use a smaller one, so that the
            average does not remember the start.

    Source: Polyak and Juditsky 1992; the warm start as in Kingma and Ba 2015, section 7.2.
    """

    def __init__(self, model: ExtractionModel, decay: float) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]  # of a sharded model, parts
        self._decay = decay
        self.values = [p.detach().clone() for p in self._parameters]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the average."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        current = [local_part(p.detach()) for p in self._parameters]
        torch._foreach_lerp_([local_part(v) for v in self.values], current, 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self._parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Within this context the model holds the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()
