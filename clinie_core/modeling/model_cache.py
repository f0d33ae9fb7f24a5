"""What a long-lived process keeps between trials: pristine backbones, tokenizers, encoded corpora.

Loading MiniLM and encoding a small corpus cost more than an epoch on it; a warm worker pays once.
The kept weights are never trained: each trial works on a copy.
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

Kept = TypeVar("Kept")


def load_backbone(config: TrialConfig) -> PreTrainedModel:
    """The pretrained weights of a configuration, with its language-model head where an answer is written."""
    generates = any(formulation.generates for formulation in build_components(config).values())
    return load_model(config.backbone, dropout=config.dropout, seed=config.seed, generates=generates)


def build_input_context(config: TrialConfig, tokenizer: PreTrainedTokenizerFast, schema: Schema) -> InputContext:
    """What documents are encoded for under a configuration."""
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
    """Keeps the last few of what trials need again.

    Args:
        capacity: How many of each kind are kept; the least recently used goes first.
    """

    def __init__(self, capacity: int = 4) -> None:
        self._capacity = capacity
        self._kept: dict[str, OrderedDict[Hashable, object]] = {}

    def _get_or_create(self, kind: str, key: Hashable, make: Callable[[], Kept]) -> Kept:
        rows = self._kept.setdefault(kind, OrderedDict())
        if key not in rows:
            while len(rows) >= self._capacity:
                rows.popitem(last=False)
            rows[key] = make()
        rows.move_to_end(key)
        return rows[key]  # type: ignore[return-value]  # each key is made by one `make`

    def backbone(self, config: TrialConfig) -> PreTrainedModel:
        """The untouched weights of a configuration's backbone, on the CPU; copy before training."""
        seed = config.seed if config.backbone.scratch is not None else 0
        generates = any(formulation.generates for formulation in build_components(config).values())
        key = (config.backbone.digest(), config.dropout, seed, generates)
        return self._get_or_create("backbone", key, lambda: load_backbone(config))

    def tokenizer(self, config: TrialConfig) -> PreTrainedTokenizerFast:
        """The tokenizer of a configuration's backbone."""
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
        """Documents as one of a configuration's formulations encodes them.

        Args:
            config: Decides formulation, tokenizer and windows.
            component: Which formulation.
            documents: What to encode.
            digest: Stands for the documents: equal digests mean equal documents.
            schema: What there is to extract.
            targets: Whether gold targets are wanted.
        """
        formulation = build_components(config)[component]
        context = replace(build_input_context(config, self.tokenizer(config), schema), task=component)
        rest = (context.window_tokens, context.overlap, context.hard_prompt, context.seed, component, targets)
        key = (digest, config.backbone.digest(), formulation.digest(), type(formulation), schema.digest(), rest)
        return self._get_or_create("encoded", key, lambda: formulation.encode(documents, context, targets=targets))
