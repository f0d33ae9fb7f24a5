"""Backbones with fewer layers, from which the memory of a deep backbone is extrapolated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.backbones.weights import initialize_model, load_config
from clinie_core.config import TrialConfig
from clinie_core.formulations import build_components

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["SHALLOW", "count_identical_layers", "load_shape"]

SHALLOW = (2, 3)
"""Numbers of layers of the backbones from which memory is extrapolated."""


def load_shape(config: TrialConfig, layers: int | None = None) -> PretrainedConfig:
    """Load the transformers configuration of a trial's backbone.

    Args:
        config: The trial's configuration.
        layers: Number of layers; None for that of the backbone.
    """
    shape = load_config(config.backbone)
    if layers is None:
        return shape
    for name, values in _list_layer_settings(shape).items():
        setattr(shape, name, list(values[:layers]))
    shape.num_hidden_layers = layers
    return shape


def count_identical_layers(config: TrialConfig) -> int | None:
    """Return the number of a backbone's layers if all are identical and more than :data:`SHALLOW`, else None.

    Layers are identical if their weights have the same shapes, and settings such as the type of attention are the same.
    Layers that a trial removes count on a CPU and would need a calculation of their own; the result is then None.
    """
    shape = load_config(config.backbone)
    layers = int(shape.num_hidden_layers)
    settings = _list_layer_settings(shape).values()
    if layers <= max(SHALLOW) + 1 or config.layers_kept != 1 or any(len(set(map(str, own))) > 1 for own in settings):
        return None
    generates = any(formulation.generates for formulation in build_components(config).values())
    with torch.device("meta"):
        backbone = initialize_model(shape, generates=generates)
    try:
        stack = find_layers(backbone)[1]
    except ValueError:  # all layers share their weights
        return None
    shapes = [
        [(type(m), *(tuple(p.shape) for p in m.parameters(recurse=False))) for m in own.modules()] for own in stack
    ]
    return layers if all(own == shapes[0] for own in shapes) else None


def _list_layer_settings(shape: PretrainedConfig) -> dict[str, Sequence[object]]:
    """Return the settings that have one value for each layer."""
    layers = shape.num_hidden_layers
    return {
        name: value for name, value in vars(shape).items() if isinstance(value, list | tuple) and len(value) == layers
    }
