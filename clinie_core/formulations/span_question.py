"""Span questions: one natural-language question for each type, answered by spans of the context.

Input: ``[CLS] question [SEP] context [SEP]``. Concepts may nest and overlap. In training, questions without an answer
are sampled; in prediction, every question is asked about every window.

Source: Li et al. 2020 (arXiv 1910.11476).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.data.document import Document
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.encoding.windows import Frame, TokenizedDocument, Window, encode_text, tokenize_documents
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.formulations.negatives import sample_negatives
from clinie_core.formulations.representable import RepresentableCounts, count_representable
from clinie_core.formulations.span_pointer import (
    number_concepts,
    remove_overlaps,
    select_owned_spans,
    select_spans_by_window,
)

if TYPE_CHECKING:
    from clinie_core.heads import TaskHead

__all__ = ["SpanQuestion"]

QUESTIONS = {
    "name": "{type}",
    "question": "which {type} mentions are in the text?",
    "instruction": "find every mention of {type}, including abbreviations.",
}


@dataclass(frozen=True)
class SpanQuery:
    """One question about one window: which mentions of a type are in it."""

    window: Window
    type: str


@dataclass(frozen=True)
class QuestionedDocument:
    """A document's tokens, and the questions about it in the order of its examples."""

    tokens: TokenizedDocument
    queries: tuple[SpanQuery, ...]


class SpanQuestion(Formulation[QuestionedDocument]):
    """Concepts as answers to a question about each type.

    Args:
        wording: ``name`` for the type alone, ``question`` for a complete question, ``instruction`` for an instruction.
        negative_ratio: Number of questions without an answer for each question with one, in training.
        width: Width of the representations that match starts with ends, even.
        dropout: Dropout before the head.
        overlaps: Whether concepts may overlap; if not, the span with the highest score is kept.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "wording": {"choose": ["name", "question", "instruction"]},
        "negative_ratio": {"choose": [1, 3]},
        "dropout": {"uniform": [0.1, 0.3]},
    }

    limiting_parameters: ClassVar[tuple[str, ...] | None] = ("overlaps",)
    type_conditioned: ClassVar[bool] = True

    wording: Literal["name", "question", "instruction"] = "question"
    negative_ratio: float = Field(default=2.0, gt=0)
    width: int = Field(default=64, ge=2, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    overlaps: bool = True

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[QuestionedDocument], ...]:
        """Build one example for each window and type; with targets, unanswered questions are sampled."""
        tokenizer, schema = context.tokenizer, context.schema
        types = schema.concept_types
        opening = f"{context.prompt}. " if context.prompt else ""
        frames = {
            type_: Frame.for_pair(
                tokenizer,
                encode_text(
                    tokenizer, opening + QUESTIONS[self.wording].format(type=context.schema.describe_type(type_))
                ),
            )
            for type_ in types
        }
        size = context.window_tokens - max((frame.size for frame in frames.values()), default=0)
        tokenized = tokenize_documents((d.text for d in documents), tokenizer, size=size, overlap=context.overlap)
        parts: list[TokenizedDocument] = []
        rows: list[list[tuple[SpanQuery, tuple[tuple[int, int, int], ...]]]] = []  # query, its gold spans
        for document, tokens in zip(documents, tokenized, strict=True):
            queries = []
            for type_ in schema.for_document(document).concept_types:
                gold = [(0, c) for c in document.concepts if c.type == type_] if targets else []
                queries += [
                    (SpanQuery(window, type_), spans)
                    for window, spans in zip(tokens.windows, select_spans_by_window(tokens, gold), strict=True)
                ]
            parts.append(tokens)
            rows.append(queries)
        if targets:
            rows = sample_negatives(
                rows, documents, lambda row: bool(row[1]), ratio=self.negative_ratio, seed=context.seed
            )
        encoded = []
        for tokens, kept in zip(parts, rows, strict=True):
            examples = tuple(
                Example(
                    frames[a.type].wrap(a.window.token_ids),
                    tuple(len(frames[a.type].prefix) + p for p in a.window.positions),
                    spans=spans,
                    second_segment=frames[a.type].second_segment,
                )
                for a, spans in kept
            )
            encoded.append(EncodedDocument(examples, QuestionedDocument(tokens, tuple(query for query, _ in kept))))
        return tuple(encoded)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build a head for starts, ends and matches over ``[batch, positions, hidden_size]``."""
        from clinie_core.heads import QuestionHead

        return QuestionHead(hidden_size, self.width, self.dropout)

    def count_representable(
        self,
        documents: Sequence[Document],
        encoded: Sequence[EncodedDocument[QuestionedDocument]],
        context: InputContext,
    ) -> RepresentableCounts:
        """Count the gold concepts that are a span of units inside a window."""
        return count_representable(documents, (item.state.tokens for item in encoded), flat=not self.overlaps)

    def decode(self, prediction: Prediction[QuestionedDocument]) -> Document:
        """Return the answers, each from the window that owns its first unit."""
        state = prediction.encoded.state
        found = [
            span
            for query, spans in zip(state.queries, prediction.outputs, strict=True)
            for span in select_owned_spans(query.window, state.tokens, spans, (query.type,))
        ]
        return replace(
            prediction.document, concepts=number_concepts(found if self.overlaps else remove_overlaps(found))
        )
