"""Pretrained backbones: where they are, their tokenizer, what they can carry, their weights.

The first half reads files only, so that ``clinie plan`` can judge a space without torch; weights
and tokenizers are loaded by transformers, safetensors only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clinie_core.config import BackboneSource
from clinie_core.errors import fail

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "architecture",
    "check_backbone",
    "hidden_size",
    "load_config",
    "load_model",
    "load_tokenizer",
    "locate",
    "quiet_transformers",
    "read_config",
]

Architecture = Literal["encoder", "decoder"]
WIDTH_NAMES = ("hidden_size", "n_embd", "d_model", "dim")


def locate(source: BackboneSource, where: str = "backbone") -> str | None:
    """Find a backbone without importing what carries it.

    Returns:
        A folder or a hub name for transformers; None for a backbone from scratch.

    Raises:
        InputError: If the package or folder is not there.
    """
    if source.scratch is not None:
        return None
    if source.hub is not None:
        return source.hub
    base = Path()
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)
        if spec is None or not spec.submodule_search_locations:
            pip_name = source.package.replace("_", "-")
            fail(
                where, f"backbone {source.name!r}: package {source.package} is not installed", f"pip install {pip_name}"
            )
        base = Path(spec.submodule_search_locations[0])
    folder = base / (source.folder or "")
    if not (folder / "config.json").is_file():
        fail(where, f"backbone {source.name!r}: no config.json in {folder}", "a folder that transformers saved")
    return str(folder)


def read_config(source: BackboneSource, where: str) -> dict[str, Any]:
    """The backbone's config.json as a dict, from the folder or the hub's cache."""
    place = locate(source, where)
    if place is None:
        return dict(source.scratch or {})
    file = Path(place) / "config.json"
    if source.hub is not None and not file.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        try:
            file = Path(hf_hub_download(source.hub, "config.json"))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ValueError) as error:
            fail(
                where,
                f"backbone {source.hub!r} is neither a folder here nor on the hub as reached from here"
                f" ({type(error).__name__})",
                "a hub name, a local folder, or a name under backbones:",
                "check the spelling, the network, or download it once with `hf download`",
            )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def architecture(source: BackboneSource, where: str = "backbone") -> Architecture:
    """Say whether a backbone is an encoder or a decoder, from its config file alone.

    Raises:
        InputError: If the backbone is not there.
    """
    config = read_config(source, where)
    names = " ".join(config.get("architectures") or [])
    causal_types = {"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"}
    causal = config.get("is_decoder") or "CausalLM" in names or "LMHeadModel" in names
    return "decoder" if causal or config.get("model_type") in causal_types else "encoder"


def hidden_size(source: BackboneSource, where: str = "backbone") -> int:
    """The width of a backbone's hidden states, from its config file alone.

    Raises:
        InputError: If the backbone is not there or its config names no width.
    """
    config = read_config(source, where)
    width = next((config[name] for name in WIDTH_NAMES if name in config), None)
    if width is None:
        fail(where, f"backbone {source.name!r}: its config names no hidden size", "one of " + ", ".join(WIDTH_NAMES))
    return int(width)


def check_backbone(source: BackboneSource, where: str = "backbone") -> None:
    """Check that a backbone is there and that its files are the expected ones.

    Raises:
        InputError: If it is missing, has no safetensors weights, or a file's sha256 differs.
    """
    read_config(source, where)
    place = locate(source, where)
    if source.tokenizer is not None:
        check_backbone(source.tokenizer, where)
    if place is None or source.hub is not None:
        return
    if not list(Path(place).glob("*.safetensors")):
        fail(where, f"backbone {source.name!r}: no *.safetensors weights in {place}", "weights in safetensors format")
    for name, expected in source.sha256.items():
        file = Path(place) / name
        if not file.is_file():
            fail(where, f"backbone {source.name!r}: {name} is not in {place}")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            fail(
                where,
                f"backbone {source.name!r}: sha256 of {name} is {found}",
                f"expected {expected}",
                "reinstall it, or correct the space if the change is meant",
            )


def load_config(source: BackboneSource) -> PretrainedConfig:
    """The transformers configuration of a backbone."""
    from transformers import AutoConfig

    place = locate(source)
    if place is None:
        arguments = dict(source.scratch or {})
        model_type = str(arguments.pop("model_type"))
        arguments.setdefault("vocab_size", len(load_tokenizer(source)))
        return AutoConfig.for_model(model_type, **arguments)
    config: PretrainedConfig = AutoConfig.from_pretrained(place)
    return config


def load_tokenizer(source: BackboneSource) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a backbone.

    Raises:
        InputError: If the backbone has no fast tokenizer, since only those know offsets.
    """
    if source.tokenizer is not None:
        return load_tokenizer(source.tokenizer)
    place = locate(source)
    if place is None:
        return _character_tokenizer()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place)
    if not tokenizer.is_fast:
        fail("backbone", f"backbone {source.name!r} has no fast tokenizer", "a tokenizer that gives offsets")
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def load_model(source: BackboneSource, *, dropout: float | None = None, seed: int = 0) -> PreTrainedModel:
    """Load a backbone without a pooler, in float32, on the CPU.

    Args:
        source: Where it comes from.
        dropout: Dropout of hidden states and attention; None keeps the backbone's own.
        seed: Draws the weights of a backbone from scratch.
    """
    import torch
    from transformers import AutoModel

    config = load_config(source)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    extra = {"add_pooling_layer": False} if config.model_type in {"bert", "roberta", "megatron-bert"} else {}
    place = locate(source)
    if place is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return AutoModel.from_config(config, **extra)
    with quiet_transformers():
        model: PreTrainedModel = AutoModel.from_pretrained(
            place, config=config, use_safetensors=True, dtype=torch.float32, **extra
        )
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing: progress bars, and a report of each pooler weight left out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _character_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single characters within words.

    Its vocabulary is printable ASCII and does not come from any corpus: a vocabulary learned from
    notes would carry patients' names into every saved model.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = [c for c in string.printable if not c.isspace()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
