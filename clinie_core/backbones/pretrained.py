"""Pretrained backbones: where they are, their tokenizer, what they can carry, their weights.

The first half reads files only, so that ``clinie plan`` can judge a space without torch; weights
and tokenizers are loaded by transformers, safetensors only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clinie_core.backbones.gguf import convert
from clinie_core.backbones.quiet import quiet_transformers
from clinie_core.config import BackboneSource
from clinie_core.errors import fail

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "Architecture",
    "BackboneFacts",
    "check_backbone",
    "empty_model",
    "load_config",
    "load_model",
    "load_tokenizer",
    "locate",
    "pin_weights",
    "read_architecture",
    "read_config",
    "read_facts",
]

Architecture = Literal["encoder", "decoder"]
WITH_POOLER = {"bert", "roberta", "megatron-bert", "xlm-roberta", "camembert"}
DROPOUT_NAMES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT and its kin
    *("attn_pdrop", "resid_pdrop", "embd_pdrop"),  # GPT-2
    *("attention_dropout", "hidden_dropout", "embedding_dropout", "mlp_dropout"),  # Llama, GPT-NeoX, ModernBERT
)
ROBERTA_KIN = {"roberta", "xlm-roberta", "camembert", "longformer"}
CAUSAL_TYPES = {
    *("gpt2", "gpt_neox", "gptj", "opt", "bloom", "llama", "mistral", "mixtral", "qwen2", "qwen3", "phi", "phi3"),
    *("gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "granite", "smollm3", "stablelm", "falcon"),
}


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
    folder = _folder(source, where)
    if source.gguf is not None:
        file = folder / source.gguf
        if not file.is_file():
            fail(where, f"backbone {source.name!r}: there is no file {file}", allowed="a GGUF file")
        return str(convert(file))
    if not (folder / "config.json").is_file():
        fail(where, f"backbone {source.name!r}: no config.json in {folder}", allowed="a folder that transformers saved")
    return str(folder)


def _folder(source: BackboneSource, where: str) -> Path:
    """The folder in which a backbone's own files are.

    Raises:
        InputError: If its package is not installed.
    """
    base = Path()
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)
        if spec is None or not spec.submodule_search_locations:
            pip_name = source.package.replace("_", "-")
            fail(
                where,
                f"backbone {source.name!r}: package {source.package} is not installed",
                allowed=f"pip install {pip_name}",
            )
        base = Path(spec.submodule_search_locations[0])
    return base / (source.folder or "")


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
            file = Path(hf_hub_download(source.hub, "config.json", revision=source.revision))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ValueError) as error:
            fail(
                where,
                f"backbone {source.hub!r} is neither a folder here nor on the hub as reached from here"
                f" ({type(error).__name__})",
                allowed="a hub name, a local folder, or a name under backbones:",
                remedy="check the spelling, the network, or download it once with `hf download`",
            )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


@dataclass(frozen=True)
class BackboneFacts:
    """What a backbone's configuration file says of it.

    Args:
        name: What the space calls it.
        architecture: Encoder or decoder.
        hidden_size: Width of its hidden states.
        intermediate_size: Width inside its MLP; None where it does not say.
        layers: How many it has; None where it does not say.
        positions: Longest input in tokens; None for no limit of its own.
    """

    name: str
    architecture: Architecture
    hidden_size: int
    intermediate_size: int | None = None
    layers: int | None = None
    positions: int | None = None


def read_facts(source: BackboneSource, where: str = "backbone") -> BackboneFacts:
    """Read a backbone's configuration file; neither weights nor torch are needed.

    Raises:
        InputError: If the backbone is not there or its configuration names no width.
    """
    config = read_config(source, where)

    def first(*names: str) -> int | None:
        return next((int(config[name]) for name in names if config.get(name)), None)

    width = first("hidden_size", "n_embd", "d_model", "dim")
    if width is None:
        fail(where, f"backbone {source.name!r}: its config names no hidden size")
    positions = first("max_position_embeddings", "n_positions")
    if positions is not None and config.get("model_type") in ROBERTA_KIN:
        positions -= int(config.get("pad_token_id") or 1) + 1  # they count from one past the padding token's number
    return BackboneFacts(
        source.name,
        _architecture(config),
        width,
        first("intermediate_size", "n_inner", "ffn_dim") or (4 * width if "n_embd" in config else None),
        first("num_hidden_layers", "n_layer"),
        positions,
    )


def _architecture(config: Mapping[str, Any]) -> Architecture:
    names = " ".join(config.get("architectures") or [])
    causal = config.get("is_decoder") or "CausalLM" in names or "LMHeadModel" in names
    return "decoder" if causal or config.get("model_type") in CAUSAL_TYPES else "encoder"


def read_architecture(source: BackboneSource) -> Architecture:
    """Whether a backbone is an encoder or a decoder."""
    return _architecture(read_config(source, "backbone"))


def check_backbone(source: BackboneSource, where: str = "backbone") -> None:
    """Check that a backbone is there and that its files are the expected ones.

    Raises:
        InputError: If it is missing, has no safetensors weights, or a file's sha256 differs.
    """
    read_config(source, where)
    place = locate(source, where)
    if source.tokenizer is not None:
        check_backbone(source.tokenizer, where)
    if place is None:
        return
    if source.hub is None and not list(Path(place).glob("*.safetensors")) and not source.allow_pickle:
        fail(
            where,
            f"backbone {source.name!r}: no *.safetensors weights in {place}",
            allowed="weights in safetensors format",
            remedy="convert them, or set allow_pickle: true under backbones: if you trust whoever wrote them",
        )
    for name, expected in source.sha256.items():
        file = _own_file(source, name, where)
        if not file.is_file():
            fail(where, f"backbone {source.name!r}: {name} is not in {place}")
        found = _sha256(file)
        if found != expected:
            fail(
                where,
                f"backbone {source.name!r}: sha256 of {name} is {found}",
                allowed=f"expected {expected}",
                remedy="reinstall it, or correct the space if the change is meant",
            )


def _own_file(source: BackboneSource, name: str, where: str) -> Path:
    """One of a backbone's own files, fetched where it is on the hub."""
    if source.hub is None or Path(source.hub).is_dir():
        place = Path(source.hub) if source.hub else _folder(source, where)
        return place / name
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.hub, name, revision=source.revision))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pin_weights(source: BackboneSource) -> BackboneSource:
    """The same backbone, held to the weights that it has now: each file by its sha256, on the hub by its commit too.

    Raises:
        InputError: If it is drawn from scratch, and so has no files.
    """
    if source.scratch is not None:
        fail(
            "--pin",
            f"backbone {source.name!r} is drawn from scratch and has no files to pin",
            allowed="a model without --pin",
        )
    if source.hub is not None:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(source.hub, revision=source.revision)
        commit = getattr(config, "_commit_hash", None) or source.revision
        source = source.model_copy(update={"revision": commit})
    names = [source.gguf] if source.gguf else _weight_names(source)
    found = {name: _sha256(_own_file(source, name, "--pin")) for name in names}
    return source.model_copy(update={"sha256": {**source.sha256, **found}})


def _weight_names(source: BackboneSource) -> list[str]:
    if source.hub is None:
        return sorted(file.name for file in _folder(source, "--pin").glob("*.safetensors"))
    from huggingface_hub import list_repo_files

    return sorted(
        name for name in list_repo_files(source.hub, revision=source.revision) if name.endswith(".safetensors")
    )


def load_config(source: BackboneSource) -> PretrainedConfig:
    """The transformers configuration of a backbone."""
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


def load_tokenizer(source: BackboneSource) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a backbone.

    Raises:
        InputError: If the backbone has no fast tokenizer, since only those know offsets.
    """
    if source.tokenizer is not None:
        return load_tokenizer(source.tokenizer)
    place = locate(source)
    if place is None:
        causal = (source.scratch or {}).get("model_type") in CAUSAL_TYPES
        return _byte_tokenizer() if causal else _character_tokenizer()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, revision=source.revision)
    if not tokenizer.is_fast:
        fail("backbone", f"backbone {source.name!r} has no fast tokenizer", allowed="a tokenizer that gives offsets")
    if tokenizer.pad_token is None:  # Llama and GPT-2 have none; attention masks keep it from being read
        if tokenizer.eos_token is None:
            fail(
                "backbone",
                f"the tokenizer of {source.name!r} has no token to pad with",
                allowed="a pad_token or eos_token",
            )
        tokenizer.pad_token = tokenizer.eos_token
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def load_model(
    source: BackboneSource, *, dropout: float | None = None, seed: int = 0, generates: bool = False
) -> PreTrainedModel:
    """Load a backbone without a pooler, in float32, on the CPU.

    Args:
        source: Where it comes from.
        dropout: Dropout of hidden states and attention; None keeps the backbone's own.
        seed: Draws the weights of a backbone from scratch.
        generates: Whether its language-model head comes along.
    """
    import torch

    config = load_config(source)
    for name in DROPOUT_NAMES:
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    place = locate(source)
    if place is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return empty_model(config, generates=generates)
    kind, extra = _model_class(config, generates=generates)
    with quiet_transformers():
        model: PreTrainedModel = kind.from_pretrained(
            place,
            config=config,
            revision=source.revision,
            use_safetensors=None if source.allow_pickle else True,
            dtype=torch.float32,
            **extra,
        )
    return model


def empty_model(config: PretrainedConfig, *, generates: bool) -> PreTrainedModel:
    """A backbone with weights that nothing was learned into; see :func:`load_model`."""
    kind, extra = _model_class(config, generates=generates)
    model: PreTrainedModel = kind.from_config(config, **extra)
    return model


def _model_class(config: PretrainedConfig, *, generates: bool) -> tuple[Any, dict[str, Any]]:
    """Which of transformers' classes builds a backbone, with its further arguments."""
    from transformers import AutoModel, AutoModelForCausalLM

    if generates:
        return AutoModelForCausalLM, {}
    return AutoModel, {"add_pooling_layer": False} if config.model_type in WITH_POOLER else {}


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, which writes any text exactly and comes from no corpus either."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


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
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
