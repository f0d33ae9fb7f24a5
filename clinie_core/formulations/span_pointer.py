"""Span classification: every pair of first and last unit is scored for every type, so concepts may overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.data.document import Concept, Document, Span, find_overlapping_spans
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.encoding.outputs import HeadOutput
from clinie_core.encoding.windows import Frame, TokenizedDocument, Window, tokenize_documents
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.formulations.representable import RepresentableCounts, count_representable

if TYPE_CHECKING:
    from clinie_core.heads import TaskHead

__all__ = [
    "SpanPointer",
    "number_concepts",
    "remove_overlaps",
    "select_owned_spans",
    "select_spans_by_window",
    "select_spans_in_window",
]


class SpanPointer(Formulation[TokenizedDocument]):
    """Spans of a window, each with a score for every type.

    Args:
        head: ``global_pointer`` uses inner products with rotary positions, ``biaffine`` a bilinear form for each type.
        width: Width of the head's representations, even.
        dropout: Dropout before the head.
        overlaps: Whether concepts may overlap; if not, the span with the highest score is kept.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "head": {"choose": ["global_pointer", "biaffine"]},
        "width": {"choose": [32, 64, 128]},
    }
    limiting_parameters: ClassVar[tuple[str, ...] | None] = ("overlaps",)

    head: Literal["global_pointer", "biaffine"] = "global_pointer"
    width: int = Field(default=64, ge=2, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    overlaps: bool = True

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[TokenizedDocument], ...]:
        """Build one example for each window; its targets are the gold spans that lie inside the window."""
        types = context.schema.concept_types
        frame = Frame.for_text(context.tokenizer, context.prompt)
        opening = len(frame.prefix)
        tokenized = tokenize_documents(
            (d.text for d in documents),
            context.tokenizer,
            size=context.window_tokens - frame.size,
            overlap=context.overlap,
        )
        encoded = []
        for document, tokens in zip(documents, tokenized, strict=True):
            gold = [(types.index(c.type), c) for c in document.concepts if c.type in types] if targets else []
            examples = tuple(
                Example(
                    frame.wrap(window.token_ids),
                    tuple(opening + p for p in window.positions),
                    spans=spans,
                    second_segment=frame.second_segment,
                )
                for window, spans in zip(tokens.windows, select_spans_by_window(tokens, gold), strict=True)
            )
            encoded.append(EncodedDocument(examples, tokens))
        return tuple(encoded)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build a span head over ``[batch, positions, hidden_size]``."""
        from clinie_core import heads

        row = {"global_pointer": heads.GlobalPointerHead, "biaffine": heads.BiaffineHead}[self.head]
        return row(hidden_size, len(schema.concept_types), self.width, self.dropout)

    def count_representable(
        self,
        documents: Sequence[Document],
        encoded: Sequence[EncodedDocument[TokenizedDocument]],
        context: InputContext,
    ) -> RepresentableCounts:
        """Count the gold concepts that are a span of units inside a window."""
        return count_representable(documents, (item.state for item in encoded), flat=not self.overlaps)

    def decode(self, prediction: Prediction[TokenizedDocument]) -> Document:
        """Return the predicted spans, each from the window that owns its first unit."""
        tokens = prediction.encoded.state
        found = [
            span
            for window, spans in zip(tokens.windows, prediction.outputs, strict=True)
            for span in select_owned_spans(window, tokens, spans, prediction.context.schema.concept_types)
        ]
        spans = found if self.overlaps else remove_overlaps(found)
        return replace(prediction.document, concepts=number_concepts(spans))


ScoredSpan = tuple[float, str, tuple[int, int]]
"""Score, type, and start and end offset of a predicted span."""


def select_spans_by_window(
    tokens: TokenizedDocument, gold: Iterable[tuple[int, Concept]]
) -> list[tuple[tuple[int, int, int], ...]]:
    """Select the labelled concepts that lie inside each window of a document.

    Args:
        tokens: The document.
        gold: Label and concept of each annotation.

    Returns:
        For each window (label, first, last) with indexes into the window's positions, sorted.
    """
    found: list[set[tuple[int, int, int]]] = [set() for _ in tokens.windows]
    for label, concept in gold:
        units = find_overlapping_spans(tokens.units, concept.start, concept.end)
        if units is None:
            continue
        # Both ends of the windows increase, so the windows that contain a concept are adjacent.
        begin = bisect_right(tokens.windows, units[1], key=lambda window: window.first_unit + len(window.positions))
        stop = bisect_right(tokens.windows, units[0], key=lambda window: window.first_unit)
        for number in range(begin, stop):
            first_unit = tokens.windows[number].first_unit
            found[number].add((label, units[0] - first_unit, units[1] - first_unit))
    return [tuple(sorted(spans)) for spans in found]


def select_spans_in_window(
    window: Window, tokens: TokenizedDocument, gold: Iterable[tuple[int, Concept]]
) -> tuple[tuple[int, int, int], ...]:
    """Select the labelled concepts that lie inside one window; see :func:`select_spans_by_window`."""
    return select_spans_by_window(TokenizedDocument(tokens.units, (window,)), gold)[0]


def select_owned_spans(
    window: Window, tokens: TokenizedDocument, spans: HeadOutput, types: Sequence[str]
) -> Iterator[ScoredSpan]:
    """Yield the predicted spans whose first unit the window owns, with offsets in the document.

    Args:
        window: The window.
        tokens: Its document.
        spans: Head output ``[spans, 4]``: label, first and last position, score.
        types: Concept type of each label.
    """
    for label, first, last, score in spans:
        first_unit, last_unit = window.first_unit + int(first), window.first_unit + int(last)
        if window.owned_units[0] <= first_unit < window.owned_units[1]:
            span = (tokens.units[first_unit].start, tokens.units[last_unit].end)
            yield float(score), types[int(label)], span


def remove_overlaps(found: Iterable[ScoredSpan]) -> list[ScoredSpan]:
    """Keep the span with the highest score of each group of overlapping spans."""
    kept: list[ScoredSpan] = []
    taken: list[tuple[int, int]] = []  # sorted and disjoint
    for item in sorted(found, key=lambda item: -item[0]):
        start, end = item[2]
        at = bisect_left(taken, (start, end))
        if (at == 0 or taken[at - 1][1] <= start) and (at == len(taken) or end <= taken[at][0]):
            taken.insert(at, (start, end))
            kept.append(item)
    return kept


def number_concepts(found: Iterable[ScoredSpan]) -> tuple[Concept, ...]:
    """Convert spans to concepts in the order of the text, without duplicates."""
    distinct = sorted({(span, type_) for _, type_, span in found})
    return tuple(Concept(f"T{i}", type_, (Span(*span),)) for i, (span, type_) in enumerate(distinct, start=1))
