"""Relation questions: a question about a head asks for its tails among the concepts of the window.

Input: ``[CLS] question [SEP] context [SEP]``, one for each head and each relation type that its type allows. An answer
counts if its span is the span of a concept whose type may be the relation's tail.

Source: Li et al. 2019, "Entity-relation extraction as multi-turn question answering" (arXiv 1905.05529).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, Relation, find_overlapping_spans
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.encoding.windows import Frame, TokenizedDocument, Window, encode_text, tokenize_documents
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.formulations.negatives import sample_negatives
from clinie_core.formulations.span_pointer import select_spans_in_window

if TYPE_CHECKING:
    from clinie_core.heads import TaskHead

__all__ = ["RelationQuestion"]

QUESTIONS = {
    "name": "{relation}: {head} {mention}",
    "question": "what stands in relation {relation} to the {head} {mention}?",
}
MENTION_TOKENS = 24
"""Longest mention in a question, in tokens; a longer one is truncated."""


@dataclass(frozen=True)
class TailQuery:
    """One question: the tails of a head and a relation type, in the window that owns the head's first unit."""

    head: Concept
    type: str
    window: Window


@dataclass(frozen=True)
class QuestionedDocument:
    """A document's tokens, and the questions about it in the order of its examples."""

    tokens: TokenizedDocument
    queries: tuple[TailQuery, ...]


class RelationQuestion(Formulation[QuestionedDocument]):
    """Relations as answers to questions about each concept.

    Args:
        wording: ``name`` for the relation and the head alone, ``question`` for a complete question.
        negative_ratio: Number of questions without an answer for each question with one, in training.
        width: Width of the representations that match starts with ends, even.
        dropout: Dropout before the head.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "wording": {"choose": ["name", "question"]},
        "negative_ratio": {"choose": [1, 3]},
        "dropout": {"uniform": [0.1, 0.3]},
    }
    tasks: ClassVar[frozenset[Task]] = frozenset({"relations"})

    type_conditioned: ClassVar[bool] = True

    wording: Literal["name", "question"] = "question"
    negative_ratio: float = Field(default=3.0, gt=0)
    width: int = Field(default=64, ge=2, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[QuestionedDocument], ...]:
        """Build one example for each head and relation type; with targets, unanswered questions are sampled."""
        tokenizer = context.tokenizer
        size = context.window_tokens - Frame.for_pair(tokenizer, ()).size - self._bound_question_tokens(context)
        tokenized = tokenize_documents((d.text for d in documents), tokenizer, size=size, overlap=context.overlap)
        parts: list[TokenizedDocument] = []
        rows: list[list[tuple[TailQuery, tuple[tuple[int, int, int], ...]]]] = []  # query, its gold spans
        for document, tokens in zip(documents, tokenized, strict=True):
            tails = _collect_tails(document) if targets else {}
            queries = self._build_queries(document, tokens, context.schema.for_document(document))
            gold = [[(0, tail) for tail in tails.get((a.type, a.head.id), ())] for a in queries]
            parts.append(tokens)
            rows.append([(a, select_spans_in_window(a.window, tokens, g)) for a, g in zip(queries, gold, strict=True)])
        if targets:
            rows = sample_negatives(
                rows, documents, lambda row: bool(row[1]), ratio=self.negative_ratio, seed=context.seed
            )
        encoded = []
        for document, tokens, kept in zip(documents, parts, rows, strict=True):
            examples = tuple(self._build_example(document, a, spans, context) for a, spans in kept)
            encoded.append(EncodedDocument(examples, QuestionedDocument(tokens, tuple(query for query, _ in kept))))
        return tuple(encoded)

    def _bound_question_tokens(self, context: InputContext) -> int:
        """Return an upper bound of the length of a question in tokens, its mention included."""
        schema = context.schema
        texts = [
            QUESTIONS[self.wording].format(relation=schema.describe_type(r), head=schema.describe_type(h), mention="")
            for r, h, _ in schema.links
        ]
        opening = len(encode_text(context.tokenizer, f"{context.prompt}. ")) if context.prompt else 0
        return opening + MENTION_TOKENS + 2 + max((len(encode_text(context.tokenizer, t)) for t in texts), default=0)

    @staticmethod
    def _build_queries(document: Document, tokens: TokenizedDocument, schema: Schema) -> list[TailQuery]:
        queries = []
        for head in document.concepts:
            units = find_overlapping_spans(tokens.units, head.start, head.end)
            if units is None:
                continue
            owner = bisect_right(tokens.windows, units[0], key=lambda window: window.owned_units[1])
            window = tokens.windows[owner]
            types = sorted({type_ for type_, head_type, _ in schema.links if head_type == head.type})
            queries += [TailQuery(head, type_, window) for type_ in types]
        return queries

    def _build_example(
        self, document: Document, query: TailQuery, spans: tuple[tuple[int, int, int], ...], context: InputContext
    ) -> Example:
        name, tokenizer = context.schema.describe_type, context.tokenizer
        mention = tokenizer.decode(encode_text(tokenizer, document.mention(query.head))[:MENTION_TOKENS])
        question = QUESTIONS[self.wording].format(
            relation=name(query.type), head=name(query.head.type), mention=mention
        )
        ids = encode_text(tokenizer, f"{context.prompt}. {question}" if context.prompt else question)
        question_tokens = context.window_tokens - len(query.window.token_ids) - Frame.for_pair(tokenizer, ()).size
        frame = Frame.for_pair(tokenizer, ids[:question_tokens])
        positions = tuple(len(frame.prefix) + p for p in query.window.positions)
        return Example(frame.wrap(query.window.token_ids), positions, spans=spans, second_segment=frame.second_segment)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build a head for starts, ends and matches over ``[batch, positions, hidden_size]``."""
        from clinie_core.heads import QuestionHead

        return QuestionHead(hidden_size, self.width, self.dropout)

    def decode(self, prediction: Prediction[QuestionedDocument]) -> Document:
        """Return relations to the concepts whose units equal the predicted spans."""
        document, state = prediction.document, prediction.encoded.state
        links = prediction.context.schema.for_document(document).links
        by_units: dict[tuple[int, int], list[Concept]] = {}
        for concept in document.concepts:
            units = find_overlapping_spans(state.tokens.units, concept.start, concept.end)
            if units is not None:
                by_units.setdefault(units, []).append(concept)
        found = set()
        for query, spans in zip(state.queries, prediction.outputs, strict=True):
            begin = query.window.first_unit
            for _, first, last, _ in spans:
                for tail in by_units.get((begin + int(first), begin + int(last)), ()):
                    link = (query.type, query.head.type, tail.type)
                    if link in links and tail.id != query.head.id:
                        found.add((query.type, query.head.id, tail.id))
        relations = tuple(Relation(f"R{i}", *ends) for i, ends in enumerate(sorted(found), start=1))
        return replace(document, relations=relations)

    def compute_diagnostics(
        self,
        documents: Sequence[Document],
        encoded: Sequence[EncodedDocument[QuestionedDocument]],
        context: InputContext,
    ) -> dict[str, float]:
        """Compute ``candidate_recall``, the share of gold relations whose tail is in the question's window."""
        reached = total = 0
        for document, item in zip(documents, encoded, strict=True):
            tails = _collect_tails(document)
            total += len(document.relations) + len(document.entity_relations)
            for a in item.state.queries:
                gold = [(0, tail) for tail in tails.get((a.type, a.head.id), ())]
                reached += len(select_spans_in_window(a.window, item.state.tokens, gold))
        return {"candidate_recall": reached / total if total else 1.0}


def _collect_tails(document: Document) -> dict[tuple[str, str], list[Concept]]:
    """Return the tails of each relation type and head id."""
    by_id = {c.id: c for c in document.concepts}
    tails: dict[tuple[str, str], list[Concept]] = {}
    for r in document.relations:
        tails.setdefault((r.type, r.head), []).append(by_id[r.tail])
    return tails
