"""Tokenizers of backbones, including those of randomly initialized ones."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from clinie_core.backbones.facts import CAUSAL_TYPES
from clinie_core.backbones.location import locate
from clinie_core.config import BackboneSource
from clinie_core.errors import fail

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["load_tokenizer"]


def load_tokenizer(source: BackboneSource) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a backbone.

    A randomly initialized decoder has a tokenizer of bytes, a randomly initialized encoder one of characters.

    Raises:
        InputError: If the backbone has no fast tokenizer (only these return offsets) or no padding token.
    """
    if source.tokenizer is not None:
        return load_tokenizer(source.tokenizer)
    place = locate(source)
    if place is None:
        causal = (source.scratch or {}).get("model_type") in CAUSAL_TYPES
        return _build_byte_tokenizer() if causal else _build_character_tokenizer()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, revision=source.revision)
    if not tokenizer.is_fast:
        fail("backbone", f"backbone {source.name!r} has no fast tokenizer", allowed="a tokenizer that returns offsets")
    if tokenizer.pad_token is None:  # Llama and GPT-2; the attention mask excludes padding whatever its token is
        if tokenizer.eos_token is None:
            fail(
                "backbone",
                f"the tokenizer of {source.name!r} has no padding token",
                allowed="a pad_token or eos_token",
            )
        tokenizer.pad_token = tokenizer.eos_token
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def _build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of single bytes, which reproduces any text exactly and needs no corpus."""
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


def _build_character_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of single characters within words.

    Its vocabulary is printable ASCII. A vocabulary learned from clinical notes would store patients' names in
    every saved model.
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
