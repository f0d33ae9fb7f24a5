"""What every formulation does: encode documents, build a task head, read its output.

A formulation is its own parameters: a frozen value without torch at import, so that a space is
validated in a blink. Its torch parts live in :mod:`clinie_core.heads` and are imported when a
model is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clinie_core.config import Frozen
from clinie_core.document import Concept, Document

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from clinie_core.heads import TaskHead

__all__ = ["EncodedDocument", "Example", "Formulation"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a batch.

    Args:
        input_ids: Token numbers with special tokens.
        positions: Indexes into ``input_ids`` at which the head reads hidden states.
        targets: A label number for each position; empty when predicting.
    """

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...] = ()


@dataclass(frozen=True)
class EncodedDocument:
    """A document's examples and what its formulation needs to read the output back."""

    examples: tuple[Example, ...]
    state: Any = None


class Formulation(Frozen, ABC):
    """Base of all formulations; a subclass is one row of ``FORMULATIONS``."""

    ranges: ClassVar[dict[str, Any]] = {}
    """Shipped search ranges, as a space writes them, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[str]] = frozenset({"encoder"})
    """Which kinds of backbone carry it."""

    @abstractmethod
    def labels(self, types: Sequence[str]) -> tuple[str, ...]:
        """The head's label names, in a fixed order, for sorted concept types."""

    @abstractmethod
    def encode(
        self,
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        window_tokens: int,
        overlap: int,
        targets: bool,
    ) -> tuple[EncodedDocument, ...]:
        """Turn documents into examples, with gold targets or without."""

    @abstractmethod
    def build_head(self, hidden_size: int, labels: Sequence[str]) -> TaskHead:
        """Build the task head for hidden states ``[batch, positions, hidden_size]``."""

    @abstractmethod
    def concepts(
        self, encoded: EncodedDocument, outputs: Sequence[np.ndarray], head: TaskHead, labels: Sequence[str]
    ) -> tuple[Concept, ...]:
        """Read a document's concepts from the head's outputs, one array ``[positions, labels]`` an example."""
