"""Cache of pretrained backbones, tokenizers and encoded corpora for a process that runs many trials.

Loading MiniLM and encoding a small corpus take longer than one epoch of training. Cached weights are never
trained: each trial uses a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import load_model
from clinie_core.config import Task, TrialConfig
from clinie_core.data.document import Document
from clinie_core.data.schema import Schema
from clinie_core.formulations import build_components
from clinie_core.formulations.formulation import InputContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from clinie_core.encoding.examples import EncodedDocument

__all__ = ["ModelCache", "build_input_context", "load_backbone"]

Cached = TypeVar("Cached")


def load_backbone(config: TrialConfig) -> PreTrainedModel:
    """Load the pretrained backbone of a configuration, with its language-model head if the formulation generates."""
    generates = any(formulation.generates for formulation in build_components(config).values())
    return load_model(config.backbone, dropout=config.dropout, seed=config.seed, generates=generates)


def build_input_context(config: TrialConfig, tokenizer: PreTrainedTokenizerFast, schema: Schema) -> InputContext:
    """Return the settings with which documents are encoded for a configuration."""
    return InputContext(
        tokenizer=tokenizer,
        schema=schema,
        task=config.task,
        window_tokens=config.window_tokens,
        overlap=config.window_overlap,
        hard_prompt=config.hard_prompt,
        seed=config.seed,
    )


class ModelCache:
    """Least-recently-used cache of backbones, tokenizers and encoded corpora.

    Args:
        capacity: Maximum number of entries of each kind.
    """

    def __init__(self, capacity: int = 4) -> None:
        self._capacity = capacity
        self._entries: dict[str, OrderedDict[Hashable, object]] = {}

    def _get_or_create(self, kind: str, key: Hashable, make: Callable[[], Cached]) -> Cached:
        entries = self._entries.setdefault(kind, OrderedDict())
        if key not in entries:
            while len(entries) >= self._capacity:
                entries.popitem(last=False)
            entries[key] = make()
        entries.move_to_end(key)
        return entries[key]  # type: ignore[return-value]  # each key is made by one `make`

    def get_backbone(self, config: TrialConfig) -> PreTrainedModel:
        """Return the pretrained backbone of a configuration, on the CPU; copy it before training."""
        seed = config.seed if config.backbone.scratch is not None else 0
        generates = any(formulation.generates for formulation in build_components(config).values())
        key = (config.backbone.digest(), config.dropout, seed, generates)
        return self._get_or_create("backbone", key, lambda: load_backbone(config))

    def get_tokenizer(self, config: TrialConfig) -> PreTrainedTokenizerFast:
        """Return the tokenizer of a configuration's backbone."""
        return self._get_or_create("tokenizer", config.backbone.digest(), lambda: load_tokenizer(config.backbone))

    def encode(
        self,
        config: TrialConfig,
        component: Task,
        documents: tuple[Document, ...],
        digest: str,
        schema: Schema,
        *,
        targets: bool,
    ) -> tuple[EncodedDocument[object], ...]:
        """Encode documents with one of a configuration's formulations, or return the cached result.

        Args:
            config: Determines formulation, tokenizer and windows.
            component: Selects the formulation.
            documents: The documents.
            digest: Identifies the documents: equal digests mean equal documents.
            schema: Annotation types to extract.
            targets: Whether to encode the gold annotations, too.
        """
        formulation = build_components(config)[component]
        context = replace(build_input_context(config, self.get_tokenizer(config), schema), task=component)
        rest = (context.window_tokens, context.overlap, context.hard_prompt, context.seed, component, targets)
        key = (digest, config.backbone.digest(), formulation.digest(), type(formulation), schema.digest(), rest)
        return self._get_or_create("encoded", key, lambda: formulation.encode(documents, context, targets=targets))
