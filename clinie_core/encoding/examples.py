"""Model inputs of a document: token ids, positions that the head reads, and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["DecodingConstraint", "EncodedDocument", "Example"]

State_co = TypeVar("State_co", covariant=True)


class DecodingConstraint(Protocol):
    """Restriction of a generated answer, at one point of the answer."""

    def next_tokens(self) -> tuple[Sequence[int], bool]:
        """Return the ids of the tokens that may follow, and whether the answer may end here."""

    def advance(self, token: int) -> DecodingConstraint:
        """Return the constraint after one more token."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a batch.

    Args:
        input_ids: Token ids, special tokens included.
        positions: Indexes into ``input_ids`` at which the head reads hidden states.
        targets: A label or token id for each position, or one for all of them; empty for prediction and for
            heads that read spans.
        spans: Gold spans as (label, first, last); first and last are indexes into ``positions``.
        second_segment: Index into ``input_ids`` at which the second segment begins; 0 for one segment.
        constraint: Restriction of the generated answer; None for free generation.
    """

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()
    second_segment: int = 0
    constraint: DecodingConstraint | None = None

    @property
    def loss_terms(self) -> int:
        """Number of terms whose sum is the example's loss."""
        return len(self.targets) or len(self.positions)


@dataclass(frozen=True)
class EncodedDocument(Generic[State_co]):
    """A document's examples, and the state that its formulation needs to decode the outputs.

    Args:
        examples: Model inputs, in order.
        state: Private to the formulation that encoded the document.
    """

    examples: tuple[Example, ...]
    state: State_co
