"""Cache of pretrained backbones, tokenizers and encoded corpora for a process that runs many trials.

Loading MiniLM and encoding a small corpus take longer than one epoch of training. Cached weights are never
trained: each trial uses a copy.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import build_empty_model, load_model
from clinie_core.config import Task, TrialConfig
from clinie_core.data.document import Document
from clinie_core.data.schema import Schema
from clinie_core.formulations import build_components
from clinie_core.formulations.input_context import build_input_context
from clinie_core.modeling.backbone_copies import measure_weights, prepare_backbone
from clinie_core.modeling.model import load_finetuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from clinie_core.encoding.examples import EncodedDocument

__all__ = ["ModelCache", "compute_cache_limit", "load_backbone"]

Cached = TypeVar("Cached")

ELEMENT_BYTES = 72
"""Approximate memory of one token of an encoded document: two integer objects and the references to them."""
WORD_BYTES = 200
"""Approximate memory of one entry of a tokenizer's vocabulary."""


def load_backbone(config: TrialConfig, *, empty: bool = False) -> PreTrainedModel:
    """Load the pretrained backbone of a configuration, with its language-model head if the formulation generates.

    Args:
        config: The configuration.
        empty: Whether to leave the weights undefined, because a checkpoint replaces all of them.
    """
    generates = any(formulation.generates for formulation in build_components(config).values())
    if empty:
        return build_empty_model(config.backbone, generates=generates)
    return load_model(config.backbone, seed=config.seed, generates=generates)


def compute_cache_limit(processes: int = 1) -> int:
    """Return the bytes that the model cache of one process may hold: its share of half of the machine's memory.

    Args:
        processes: Number of processes of this machine that have a model cache.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(memory, int(text) if text.isdigit() else memory) // 2 // processes


class ModelCache:
    """Least-recently-used cache of backbones, tokenizers and encoded corpora.

    A backbone whose weights a fine-tuning method freezes is also kept in the form in which trials use it: on their
    device and in their dtype. Besides the CPU, at most one backbone is kept on a device, and it is released before a
    trial that does not use it. Such a trial therefore has the device's whole memory.

    Args:
        max_bytes: Upper limit of the total size. Memory-mapped weights count, although processes share them. The entry
            that was used last is kept even if it is larger. None for half of the machine's memory.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = compute_cache_limit() if max_bytes is None else max_bytes
        self._entries: OrderedDict[tuple[Hashable, ...], object] = OrderedDict()

    def measure_bytes(self) -> int:
        """Return the total size of all entries; that of tokenizers and encoded corpora is approximate."""
        sizes: dict[Hashable, int] = {}  # backbones share weights: each piece of memory counts once
        for key, entry in self._entries.items():
            sizes |= measure_weights(entry) if isinstance(entry, nn.Module) else {key: _estimate_bytes(entry)}
        return sum(sizes.values())

    def release_device(self) -> None:
        """Drop the backbones that are not in the machine's main memory."""
        self._release_device(keep=None)

    def _release_device(self, keep: Hashable) -> None:
        found = [key for key in self._entries if key[0] == "placed" and key[1] != "cpu" and key != keep]
        for key in found:
            del self._entries[key]

    def _get_or_create(self, key: tuple[Hashable, ...], make: Callable[[], Cached]) -> Cached:
        if key not in self._entries:
            self._entries[key] = make()
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self.measure_bytes() > self._max_bytes:
            self._entries.popitem(last=False)
        return self._entries[key]  # type: ignore[return-value]  # each key is made by one `make`

    def get_backbone(
        self, config: TrialConfig, device: torch.device | None = None, frozen_dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        """Return the pretrained backbone of a configuration; copy it before training.

        Args:
            config: The configuration.
            device: Device of the trial; None for the CPU.
            frozen_dtype: Format of weights that the fine-tuning method freezes.

        Returns:
            The backbone as the method has prepared it, on the device and in that format, if the method freezes it:
            trials can share its weights. Otherwise the backbone on the CPU in the dtype of its files.
        """
        device = device or torch.device("cpu")
        seed = config.seed if config.backbone.scratch is not None else 0
        generates = any(formulation.generates for formulation in build_components(config).values())
        source = (config.backbone.digest(), seed, generates)

        def load() -> PreTrainedModel:
            return self._get_or_create(("backbone", *source), lambda: load_backbone(config))

        method = load_finetuning(config)
        if not method.freezes_backbone:
            self._release_device(keep=None)
            return load()
        key = ("placed", str(device), frozen_dtype, method.preparation, *source)
        self._release_device(keep=key)
        return self._get_or_create(key, lambda: prepare_backbone(load(), method, device, frozen_dtype))

    def get_tokenizer(self, config: TrialConfig) -> PreTrainedTokenizerFast:
        """Return the tokenizer of a configuration's backbone."""
        return self._get_or_create(("tokenizer", config.backbone.digest()), lambda: load_tokenizer(config.backbone))

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
        encoding = (config.backbone.digest(), formulation.digest(), type(formulation), schema.digest(), rest)
        key = ("encoded", digest, *encoding)
        return self._get_or_create(key, lambda: formulation.encode(documents, context, targets=targets))


def _estimate_bytes(entry: object) -> int:
    """Return the approximate size of a tokenizer or an encoded corpus."""
    if not isinstance(entry, tuple):
        return WORD_BYTES * len(entry)  # type: ignore[arg-type]  # a tokenizer
    rows = [example for document in entry for example in document.examples]
    return ELEMENT_BYTES * sum(len(row.input_ids) + len(row.positions) + len(row.targets) for row in rows)
