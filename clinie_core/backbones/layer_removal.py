"""Removal of a backbone's layers before training.

Source: Sajjad et al. 2023, "On the effect of dropping layers of pre-trained transformer models"
(Computer Speech and Language 77): top and alternate dropping.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["find_layers", "remove_layers", "select_layers"]


def select_layers(layers: int, share: float, scheme: Literal["top", "alternate"]) -> list[int]:
    """Select the layers to keep.

    Args:
        layers: Number of layers of the backbone.
        share: Share of them to keep, in (0, 1]; rounded up to whole layers.
        scheme: ``top`` removes the highest layers; ``alternate`` keeps the lowest layer and others evenly spaced.

    Returns:
        Indexes of the layers to keep, in ascending order.
    """
    count = max(1, math.ceil(share * layers - 1e-9))
    if scheme == "top":
        return list(range(count))
    return [i * layers // count for i in range(count)]


def find_layers(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """Find a backbone's stack of layers.

    Returns:
        The path and module of the first ``ModuleList`` whose length is the configured number of layers.

    Raises:
        ValueError: If the backbone has no such list.
    """
    config = getattr(backbone, "config", None)
    layers = int(getattr(config, "num_hidden_layers", 0) or 0)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return name, module
    raise ValueError(f"{type(backbone).__name__} has no list of {layers} layers")


def remove_layers(backbone: PreTrainedModel, share: float, scheme: Literal["top", "alternate"]) -> None:
    """Remove layers of a backbone in place, and update its configuration and the layers' indexes.

    Args:
        backbone: The backbone.
        share: Share of the layers to keep, in (0, 1].
        scheme: See :func:`select_layers`.
    """
    if share == 1:
        return
    name, stack = find_layers(backbone)
    kept = select_layers(len(stack), share, scheme)
    parent = backbone.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ModuleList([stack[i] for i in kept]))
    for number, layer in enumerate(stack[i] for i in kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # the index of a decoder layer in the key-value cache
                setattr(module, "layer_idx", number)  # noqa: B010  # mypy does not know the attribute
    config = backbone.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[i] for i in kept]
