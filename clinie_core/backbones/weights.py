"""Models of backbones: transformers configuration and weights, pretrained or randomly initialized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clinie_core.backbones.facts import CAUSAL_TYPES
from clinie_core.backbones.generation_settings import remove_generation_settings
from clinie_core.backbones.location import locate
from clinie_core.backbones.manifest import find_fetched
from clinie_core.backbones.node_cache import copy_to_node
from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.transformers_logging import quiet_transformers
from clinie_core.config import BackboneSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["build_empty_model", "import_model_classes", "initialize_model", "load_config", "load_model"]

WITH_POOLER = {"bert", "roberta", "megatron-bert", "xlm-roberta", "camembert"}


def import_model_classes() -> None:
    """Import what all architectures of transformers need, which takes seconds."""
    import transformers.modeling_utils  # noqa: F401


def load_config(source: BackboneSource) -> PretrainedConfig:
    """Load the transformers configuration of a backbone.

    The vocabulary size and special tokens of a randomly initialized backbone come from its tokenizer.
    """
    from transformers import AutoConfig

    place = locate(source)
    if place is None:
        arguments = dict(source.scratch or {})
        model_type = str(arguments.pop("model_type"))
        tokenizer = load_tokenizer(source)
        arguments.setdefault("vocab_size", len(tokenizer))
        if model_type in CAUSAL_TYPES:
            for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
                arguments.setdefault(name, getattr(tokenizer, name))
        return AutoConfig.for_model(model_type, **arguments)
    config: PretrainedConfig = AutoConfig.from_pretrained(place, revision=source.revision)
    return config


def load_model(source: BackboneSource, *, seed: int = 0, generates: bool = False) -> PreTrainedModel:
    """Load a backbone without a pooler, in the dtype of its weight files, on the CPU.

    Weights in safetensors are memory-mapped: the processes of a machine share them, and a process needs memory of its
    own only for pages that it changes.

    Args:
        source: The backbone.
        seed: Seed of the weights of a randomly initialized backbone.
        generates: Whether to load the language-model head too.
    """
    import torch

    config = load_config(source)
    place = locate(source)
    if place is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return initialize_model(config, generates=generates)
    fetched = find_fetched(source)
    if fetched is not None:
        place = str(copy_to_node(*fetched))
    model_class, extra = _select_model_class(config, generates=generates)
    config.dtype = None  # otherwise transformers converts, and thereby copies, weights of another dtype
    with quiet_transformers():
        model: PreTrainedModel = model_class.from_pretrained(
            place,
            config=config,
            revision=source.revision,
            use_safetensors=None if source.allow_pickle else True,
            dtype="auto",
            **extra,
        )
    remove_generation_settings(model)
    return model


def initialize_model(config: PretrainedConfig, *, generates: bool) -> PreTrainedModel:
    """Build a backbone with random weights.

    Args:
        config: Its transformers configuration.
        generates: Whether it has a language-model head.
    """
    model_class, extra = _select_model_class(config, generates=generates)
    model: PreTrainedModel = model_class.from_config(config, **extra)
    return model


def build_empty_model(source: BackboneSource, *, generates: bool = False) -> PreTrainedModel:
    """Build a backbone with undefined float32 weights, which a checkpoint with all of them replaces.

    Args:
        source: The backbone; its weights are not read.
        generates: Whether it has a language-model head.
    """
    import torch
    from transformers.initialization import no_init_weights

    config = load_config(source)
    model_class, extra = _select_model_class(config, generates=generates)
    with no_init_weights():
        model: PreTrainedModel = model_class.from_config(config, dtype=torch.float32, **extra)
    model.tie_weights()
    remove_generation_settings(model)
    return model


def _select_model_class(config: PretrainedConfig, *, generates: bool) -> tuple[Any, dict[str, Any]]:
    """Return the transformers class that builds a backbone, and its further arguments."""
    from transformers import AutoModel, AutoModelForCausalLM

    if generates:
        return AutoModelForCausalLM, {}
    return AutoModel, {"add_pooling_layer": False} if config.model_type in WITH_POOLER else {}
