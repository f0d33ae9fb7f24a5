"""Estimate of a configuration's size: number of parameters and approximate memory for training.

The model is built on torch's meta device, so no weights are loaded and nothing is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from clinie_core.backbones.weights import initialize_model, load_config
from clinie_core.config import BackboneSource, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.formulations import build_components
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import build_model
from clinie_core.training.trainer import choose_micro_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["MemoryEstimate", "estimate_memory"]


@dataclass(frozen=True)
class MemoryEstimate:
    """Size of a configuration.

    Args:
        parameters: Number of parameters.
        trainable: Number of parameters that training changes.
        memory_mb: Approximate peak memory of each process in MiB, for training in float32.
    """

    parameters: int
    trainable: int
    memory_mb: float


@lru_cache(maxsize=8)
def _build_meta_backbone(source_json: str, *, generates: bool) -> PreTrainedModel:
    config = load_config(BackboneSource.model_validate_json(source_json))
    with torch.device("meta"):
        return initialize_model(config, generates=generates)


def estimate_memory(config: TrialConfig, schema: Schema, *, processes: int = 1) -> MemoryEstimate:
    """Estimate the number of parameters and the memory of a configuration.

    Weights, gradients and both AdamW moments are counted exactly, and divided by the number of processes if they are
    sharded. Activations are estimated in float32: 68 bytes per token and hidden unit of each layer, and 10 bytes per
    pair of tokens and attention head. With gradient checkpointing, the activations of one layer and the input of every
    layer count.

    Args:
        config: The configuration.
        schema: Annotation types to extract.
        processes: Number of processes that train a trial together.

    Source: Korthikanti et al. 2022 (arXiv 2205.05198), equation 1.
    """
    generates = any(formulation.generates for formulation in build_components(config).values())
    backbone = _build_meta_backbone(config.backbone.model_dump_json(), generates=generates)
    with torch.device("meta"):
        model = build_model(config, schema, backbone)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    c = backbone.config
    layers = math.ceil(config.layers_kept * int(getattr(c, "num_hidden_layers", 12)))
    heads = int(getattr(c, "num_attention_heads", 12))
    tokens = choose_micro_batch(config, DistributedContext(size=processes)) * config.window_tokens
    layer = tokens * (68 * int(c.hidden_size) + 10 * heads * config.window_tokens)
    inputs = 4 * tokens * int(c.hidden_size)
    activations = layer + layers * inputs if config.gradient_checkpointing else layers * layer
    held = (4 * total + 12 * trainable) / (processes if config.sharded else 1)
    return MemoryEstimate(total, trainable, (held + activations) / 2**20)
