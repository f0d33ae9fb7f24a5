"""How much of a backbone's depth is kept: layers can go before any training begins.

Source: Sajjad et al. 2023, "On the effect of dropping layers of pre-trained transformer models"
(Computer Speech and Language 77), whose top and alternate dropping these are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["find_layers", "remove_layers", "select_layers"]


def select_layers(layers: int, depth: float, scheme: Literal["top", "alternate"]) -> list[int]:
    """Numbers of the layers that stay.

    Args:
        layers: How many there are.
        depth: Share to keep, in (0, 1]; rounded up to whole layers.
        scheme: ``top`` keeps the lowest; ``alternate`` keeps the lowest one and others evenly spread.
    """
    count = max(1, math.ceil(depth * layers - 1e-9))
    if scheme == "top":
        return list(range(count))
    return [i * layers // count for i in range(count)]


def find_layers(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """A backbone's repeated layers, with their path: the first list of as many modules as its configuration says.

    Raises:
        ValueError: If it has none.
    """
    config = getattr(backbone, "config", None)
    layers = int(getattr(config, "num_hidden_layers", 0) or 0)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return name, module
    raise ValueError(f"{type(backbone).__name__} has no list of {layers} layers")


def remove_layers(backbone: PreTrainedModel, depth: float, scheme: Literal["top", "alternate"]) -> None:
    """Drop layers in place; the configuration and the layers' own numbers follow."""
    if depth == 1:
        return
    name, stack = find_layers(backbone)
    kept = select_layers(len(stack), depth, scheme)
    parent = backbone.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ModuleList([stack[i] for i in kept]))
    for number, layer in enumerate(stack[i] for i in kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # by which a decoder finds its part of the cache
                setattr(module, "layer_idx", number)  # noqa: B010  # a module's attributes have no such type
    config = backbone.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[i] for i in kept]
