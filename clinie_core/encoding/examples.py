"""What a formulation makes of a document: rows of token numbers, where to read, and what should stand there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["EncodedDocument", "Example"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a batch.

    Args:
        input_ids: Token numbers with special tokens.
        positions: Indexes into ``input_ids`` at which the head reads hidden states.
        targets: A label or token number for each position, or one for all of them; empty when
            predicting and for heads that read spans.
        spans: Gold spans as (label, first position, last position), the positions by their place in
            ``positions``.
        second_segment: Index into ``input_ids`` at which the second segment begins; 0 for one segment.
        grammar: What an answer may be (:class:`clinie_core.templates.constrained_decoding.Grammar`); None for anything.
    """

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()
    second_segment: int = 0
    grammar: Any = None

    @property
    def loss_terms(self) -> int:
        """By how many decisions its loss is a sum."""
        return len(self.targets) or len(self.positions)


@dataclass(frozen=True)
class EncodedDocument:
    """A document's examples and what its formulation needs to read the output back."""

    examples: tuple[Example, ...]
    state: Any = None
