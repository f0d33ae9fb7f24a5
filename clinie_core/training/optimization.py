"""Optimizer, learning-rate schedule and weight averaging of one trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from clinie_core.config import TrialConfig
from clinie_core.errors import fail
from clinie_core.finetuning.method import FineTuning
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.sharding import get_local_shard

__all__ = ["MovingAverage", "build_optimizer"]


def build_optimizer(
    config: TrialConfig, method: FineTuning, model: ExtractionModel, steps: int
) -> tuple[AdamW, LRScheduler]:
    """Build AdamW over the trainable parameters, and a learning-rate schedule with warm-up.

    Vectors (biases, norms and the scales of IA3) have no weight decay. The fine-tuning method scales the learning rate
    per layer. The rate rises linearly from zero during warm-up and then falls to zero after the last step.

    Args:
        config: Weight decay, warm-up ratio and schedule.
        method: Peak learning rate, factor for the heads and scale per layer.
        model: The model whose trainable parameters are optimized.
        steps: Number of optimizer steps of the whole trial.

    Returns:
        The optimizer, with one parameter group for each pair of learning rate and weight decay, and its schedule.

    Raises:
        InputError: If the fine-tuning method leaves no parameter trainable.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    from transformers import get_scheduler

    trunk = getattr(model.backbone, "config", None)
    layers = int(getattr(trunk, "num_hidden_layers", 1) or 1)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_head = name.startswith("heads.")
            rate = method.learning_rate * (method.head_rate_factor if in_head else method.get_lr_factor(name, layers))
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        found = f"{config.finetuning.name} leaves no trainable parameter in this model"
        fail("finetuning", found, remedy="use another method")
    optimizer = AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()],
        fused=True,
    )
    warmup_steps = round(config.warmup_ratio * steps)
    return optimizer, get_scheduler(config.schedule, optimizer, warmup_steps, steps)


class MovingAverage:
    """Exponential moving average of the trainable weights.

    Args:
        model: The model whose weights are averaged.
        decay: Weight of the previous average at each step. Early steps use a smaller value, so that the initial weights
            do not dominate the average.

    Source: Polyak and Juditsky 1992; the correction for early steps is discussed in Kingma and Ba 2015, section 7.2.
    """

    def __init__(self, model: ExtractionModel, decay: float) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._decay = decay
        self.values = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights; a sharded model updates the part of this process."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        current = [get_local_shard(p.detach()) for p in self.parameters]
        torch._foreach_lerp_([get_local_shard(v) for v in self.values], current, 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            current = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(current)

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Return a context within which the model holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()
