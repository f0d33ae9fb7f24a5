"""What a long-lived process keeps between trials: pristine backbones, tokenizers, encoded corpora.

Loading MiniLM and encoding a small corpus cost more than an epoch on it; a warm worker pays once.
The kept weights are never trained: each trial works on a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

from clinie_core.backbones import load_model, load_tokenizer
from clinie_core.config import TrialConfig
from clinie_core.document import Document
from clinie_core.model import formulation_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from clinie_core.formulations.formulation import EncodedDocument

__all__ = ["Shelf"]

Kept = TypeVar("Kept")


class Shelf:
    """Keeps the last few of what trials need again.

    Args:
        capacity: How many of each kind are kept; the least recently used goes first.
    """

    def __init__(self, capacity: int = 3) -> None:
        self._capacity = capacity
        self._kept: dict[str, OrderedDict[Hashable, object]] = {}

    def _get(self, kind: str, key: Hashable, make: Callable[[], Kept]) -> Kept:
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
        key = (config.backbone.digest(), config.dropout, seed)
        return self._get("backbone", key, lambda: load_model(config.backbone, dropout=config.dropout, seed=seed))

    def tokenizer(self, config: TrialConfig) -> PreTrainedTokenizerFast:
        """The tokenizer of a configuration's backbone."""
        return self._get("tokenizer", config.backbone.digest(), lambda: load_tokenizer(config.backbone))

    def encoded(
        self,
        config: TrialConfig,
        documents: tuple[Document, ...],
        digest: str,
        labels: tuple[str, ...],
        *,
        targets: bool,
    ) -> tuple[EncodedDocument, ...]:
        """Documents as a configuration's formulation encodes them.

        Args:
            config: Decides formulation, tokenizer and windows.
            documents: What to encode.
            digest: Stands for the documents: equal digests mean equal documents.
            labels: The formulation's label names.
            targets: Whether gold targets are wanted.
        """
        formulation = formulation_of(config)
        tokenizer = self.tokenizer(config)
        windows = (config.window_tokens, config.window_overlap)
        key = (digest, config.backbone.digest(), formulation.digest(), type(formulation), windows, labels, targets)
        return self._get(
            "encoded",
            key,
            lambda: formulation.encode(
                documents, tokenizer, labels, window_tokens=windows[0], overlap=windows[1], targets=targets
            ),
        )
