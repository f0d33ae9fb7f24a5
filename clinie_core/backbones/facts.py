"""Facts from a backbone's configuration file: architecture, width, depth and longest input.

Only files are read, so ``clinie plan`` can check a space without importing torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clinie_core.backbones.location import locate
from clinie_core.config import BackboneSource
from clinie_core.errors import fail

__all__ = ["CAUSAL_TYPES", "Architecture", "BackboneFacts", "read_architecture", "read_config", "read_facts"]

Architecture = Literal["encoder", "decoder"]
ROBERTA_FAMILY = {"roberta", "xlm-roberta", "camembert", "longformer"}
CAUSAL_TYPES = {
    *("gpt2", "gpt_neox", "gptj", "opt", "bloom", "llama", "mistral", "mixtral", "qwen2", "qwen3", "phi", "phi3"),
    *("gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "granite", "smollm3", "stablelm", "falcon"),
}
"""Values of ``model_type`` that are always decoders."""

ROTARY_TYPES = CAUSAL_TYPES - {"gpt2", "opt"} | {"modernbert"}
"""Values of ``model_type`` without a table of position embeddings."""
GATED_TYPES = ROTARY_TYPES - {"gpt_neox", "gptj", "bloom", "phi", "falcon"}
"""Values of ``model_type`` whose MLP has three matrices."""


@dataclass(frozen=True)
class BackboneFacts:
    """Properties of a backbone that its configuration file states.

    Args:
        name: Name of the backbone in the space.
        architecture: Encoder or decoder.
        hidden_size: Width of the hidden states.
        intermediate_size: Width inside the MLP; None if the file does not state it.
        layers: Number of layers; None if the file does not state it.
        positions: Longest input in tokens; None if there is no limit.
        parameters: Number of parameters, computed from the sizes above and accurate to a few per cent; with the
            language-model head of a decoder whose file states that it is not tied.
        can_freeze: Whether a method may freeze its weights; False if they are random and nothing allows it.
    """

    name: str
    architecture: Architecture
    hidden_size: int
    intermediate_size: int | None = None
    layers: int | None = None
    positions: int | None = None
    parameters: int = 0
    can_freeze: bool = True


def read_config(source: BackboneSource, where: str) -> dict[str, Any]:
    """Read a backbone's ``config.json`` from its folder or the Hub.

    Args:
        source: The backbone; a randomly initialized one returns its ``scratch`` parameters.
        where: Key path for error messages.

    Raises:
        InputError: If the backbone is neither available locally nor on the Hub.
    """
    place = locate(source, where)
    if place is None:
        return dict(source.scratch or {})
    file = Path(place) / "config.json"
    if source.hub is not None and not file.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        try:
            file = Path(hf_hub_download(source.hub, "config.json", revision=source.revision))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ValueError) as error:
            fail(
                where,
                f"backbone {source.hub!r} is neither a local folder nor available on the Hub ({type(error).__name__})",
                allowed="a Hub name, a local folder, or a name under backbones:",
                remedy="check the spelling and the network, or download it once with `hf download`",
            )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def read_facts(source: BackboneSource, where: str = "backbone") -> BackboneFacts:
    """Read the facts of a backbone from its configuration file.

    Args:
        source: The backbone.
        where: Key path for error messages.

    Raises:
        InputError: If the backbone is missing or its configuration names no hidden size.
    """
    config = read_config(source, where)

    def first(*names: str) -> int | None:
        return next((int(config[name]) for name in names if config.get(name)), None)

    width = first("hidden_size", "n_embd", "d_model", "dim")
    if width is None:
        fail(where, f"backbone {source.name!r}: its config names no hidden size")
    positions = first("max_position_embeddings", "n_positions")
    if positions is not None and config.get("model_type") in ROBERTA_FAMILY:
        positions -= int(config.get("pad_token_id") or 1) + 1  # their first position follows the padding token's id
    return BackboneFacts(
        source.name,
        _infer_architecture(config),
        width,
        first("intermediate_size", "n_inner", "ffn_dim") or (4 * width if "n_embd" in config else None),
        first("num_hidden_layers", "n_layer"),
        positions,
        _count_parameters(config, width),
        can_freeze=source.scratch is None or source.allow_frozen,
    )


def _count_parameters(config: Mapping[str, Any], width: int) -> int:
    """Return the number of weights of embeddings, attention and MLP; biases and normalization are left out."""
    kind = str(config.get("model_type"))
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    head_width = int(config.get("head_dim") or width // heads)
    groups = int(config.get("num_key_value_heads") or heads)
    inner = int(config.get("intermediate_size") or config.get("n_inner") or config.get("ffn_dim") or 4 * width)
    attention = 2 * width * head_width * (heads + groups)
    mlp = (3 if kind in GATED_TYPES else 2) * width * inner
    embeddings = int(config.get("vocab_size") or 0) * width
    if kind not in ROTARY_TYPES:
        embeddings += int(config.get("max_position_embeddings") or config.get("n_positions") or 0) * width
    if config.get("tie_word_embeddings") is False and _infer_architecture(config) == "decoder":
        embeddings += int(config.get("vocab_size") or 0) * width
    return embeddings + layers * (attention + mlp)


def read_architecture(source: BackboneSource) -> Architecture:
    """Return whether a backbone is an encoder or a decoder."""
    return _infer_architecture(read_config(source, "backbone"))


def _infer_architecture(config: Mapping[str, Any]) -> Architecture:
    names = " ".join(config.get("architectures") or [])
    causal = config.get("is_decoder") or "CausalLM" in names or "LMHeadModel" in names
    return "decoder" if causal or config.get("model_type") in CAUSAL_TYPES else "encoder"
