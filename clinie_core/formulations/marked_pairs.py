"""Marked-pair classification: one input for each candidate pair of concepts, labelled with its relation.

Candidates are ordered pairs of concepts whose types were linked in training and whose sentences are near enough. A
relation between other concepts cannot be predicted; ``candidate_recall`` reports the share of relations between
candidates. Markers are plain text, because a frozen backbone could not learn embeddings of new special tokens.

A relation between terminology entries is classified by the nearest pair of their mentions.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, EntityRelation, Relation
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.encoding.sentences import find_sentence, find_sentence_starts
from clinie_core.encoding.windows import Frame, encode_text
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.formulations.negatives import sample_negatives

if TYPE_CHECKING:
    from clinie_core.heads import TaskHead

__all__ = ["MarkedPairs"]

Keys = tuple[str, str]
"""Ids of two concepts, or references of two terminology entries."""
Marks = tuple[list[int], list[int], list[int], list[int]]
"""Token ids of the markers before and after the head, and before and after the tail."""


@dataclass(frozen=True)
class Candidate:
    """Two concepts that may be related.

    Args:
        head: Head concept.
        tail: Tail concept.
        keys: Ids that the relation would link.
        of_entries: Whether the relation would link terminology entries and not the concepts.
    """

    head: Concept
    tail: Concept
    keys: Keys
    of_entries: bool


class MarkedPairs(Formulation[tuple[Candidate, ...]]):
    """Classified relations between marked concepts.

    Args:
        markers: ``boundary`` puts ``[s1] [e1]`` around the head and ``[s2] [e2]`` around the tail, ``typed`` uses the
            names of their types, ``punctuation`` uses ``@`` and ``#``.
        segments: 1 for one part of the text with both concepts, 2 for a separate part around each.
        representation: Hidden states to read: the opening token's (``cls``), those of the opening markers of head and
            tail (``markers``), or all three (``both``).
        max_distance: Maximum number of sentences between head and tail; 0 for the same sentence.
        pair_tokens: Longest input in tokens, at most ``window_tokens``.
        negative_ratio: Number of unrelated pairs for each related pair in training.
        none_weight: Weight of an unrelated pair in the loss.
        head_layers: Number of hidden layers of the head.
        dropout: Dropout before each layer of the head.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "markers": {"choose": ["boundary", "typed", "punctuation"]},
        "segments": {"choose": [1, 2]},
        "representation": {"choose": ["cls", "markers", "both"]},
        "max_distance": {"choose": [0, 1, 3]},
        "negative_ratio": {"choose": [2, 5, 10]},
    }
    tasks: ClassVar[frozenset[Task]] = frozenset({"relations"})

    markers: Literal["boundary", "typed", "punctuation"] = "typed"
    segments: Literal[1, 2] = 1
    representation: Literal["cls", "markers", "both"] = "both"
    max_distance: int = Field(default=1, ge=0)
    pair_tokens: int = Field(default=128, ge=24)
    negative_ratio: float = Field(default=5.0, gt=0)
    none_weight: float = Field(default=1.0, gt=0)
    head_layers: int = Field(default=0, ge=0, le=3)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[tuple[Candidate, ...]], ...]:
        """Build one example for each candidate; with targets, unrelated candidates are sampled."""
        types = context.schema.relation_types
        rows: list[list[tuple[Candidate, str | None]]] = []
        for document in documents:
            gold = _collect_gold(document) if targets else {}
            rows.append(
                [(c, gold.get((c.of_entries, c.keys))) for c in self._iter_candidates(document, context.schema)]
            )
        if targets:
            rows = sample_negatives(
                rows, documents, lambda row: row[1] is not None, ratio=self.negative_ratio, seed=context.seed
            )
        encoder = _PairEncoder(self, context)
        encoded = []
        tokens = context.tokenizer(
            [d.text for d in documents], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for number, kept in enumerate(rows):
            ids, offsets = tokens["input_ids"][number], tokens["offset_mapping"][number]
            examples = tuple(
                encoder.encode_candidate(ids, offsets, c, (types.index(label) + 1 if label else 0,) if targets else ())
                for c, label in kept
            )
            encoded.append(EncodedDocument(examples, tuple(c for c, _ in kept)))
        return tuple(encoded)

    def _iter_candidates(self, document: Document, schema: Schema) -> Iterator[Candidate]:
        starts = find_sentence_starts(document.text)
        sentence = {c.id: find_sentence(starts, c.start) for c in document.concepts}
        legal = {(head, tail) for _, head, tail in schema.links}
        if legal:
            ordered = sorted(document.concepts, key=lambda c: sentence[c.id])
            numbers = [sentence[c.id] for c in ordered]
            for head in ordered:
                first = bisect_left(numbers, sentence[head.id] - self.max_distance)
                last = bisect_right(numbers, sentence[head.id] + self.max_distance)
                for tail in ordered[first:last]:
                    if head.id != tail.id and (head.type, tail.type) in legal:
                        yield Candidate(head, tail, (head.id, tail.id), of_entries=False)
        legal = {(head, tail) for _, head, tail in schema.entity_links}
        if legal:
            yield from self._iter_entry_candidates(document, legal, sentence)

    def _iter_entry_candidates(
        self, document: Document, legal: set[Keys], sentence: Mapping[str, int]
    ) -> Iterator[Candidate]:
        """Yield the nearest pair of mentions of each two terminology entries."""
        by_id = {c.id: c for c in document.concepts}
        mentions: defaultdict[str, list[Concept]] = defaultdict(list)
        for n in document.normalizations:
            if n.target in by_id:
                mentions[n.reference].append(by_id[n.target])
        ordered = sorted(((sentence[c.id], entry, c.type) for entry, own in mentions.items() for c in own))
        numbers = [number for number, _, _ in ordered]
        near: defaultdict[str, set[str]] = defaultdict(set)
        for number, head_entry, head_type in ordered:
            first = bisect_left(numbers, number - self.max_distance)
            last = bisect_right(numbers, number + self.max_distance)
            near[head_entry].update(t for _, t, type_ in ordered[first:last] if (head_type, type_) in legal)
        place = {entry: i for i, entry in enumerate(mentions)}
        for head_entry, heads in mentions.items():
            for tail_entry in sorted(near[head_entry] - {head_entry}, key=place.__getitem__):
                head, tail = _find_nearest_pair(heads, mentions[tail_entry], legal)
                if abs(sentence[head.id] - sentence[tail.id]) <= self.max_distance:
                    yield Candidate(head, tail, (head_entry, tail_entry), of_entries=True)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build a classifier of ``[batch, 3, hidden_size]``; label 0 means no relation."""
        from clinie_core.heads import PairHead

        labels = 1 + len(schema.relation_types)
        return PairHead(hidden_size, labels, self.representation, self.dropout, self.head_layers, self.none_weight)

    def decode(self, prediction: Prediction[tuple[Candidate, ...]]) -> Document:
        """Select the best label of each candidate among those that its types allow."""
        schema = prediction.context.schema
        relations: list[Relation] = []
        entity_relations: list[EntityRelation] = []
        for candidate, scores in zip(prediction.encoded.state, prediction.outputs, strict=True):
            links = schema.entity_links if candidate.of_entries else schema.links
            ends = (candidate.head.type, candidate.tail.type)
            possible = [type_ for type_, *types in links if tuple(types) == ends]
            best = max(possible, key=lambda type_: float(scores[1 + schema.relation_types.index(type_)]))
            if scores[1 + schema.relation_types.index(best)] <= scores[0]:
                continue
            if candidate.of_entries:
                entity_relations.append(EntityRelation(f"D{len(entity_relations) + 1}", best, *candidate.keys))
            else:
                relations.append(Relation(f"R{len(relations) + 1}", best, *candidate.keys))
        return replace(prediction.document, relations=tuple(relations), entity_relations=tuple(entity_relations))

    def compute_diagnostics(
        self,
        documents: Sequence[Document],
        encoded: Sequence[EncodedDocument[tuple[Candidate, ...]]],
        context: InputContext,
    ) -> dict[str, float]:
        """Compute ``candidate_recall``, the share of gold relations whose concepts are a candidate."""
        reached = total = 0
        for document, item in zip(documents, encoded, strict=True):
            pairs = {(c.of_entries, c.keys) for c in item.state}
            total += len(document.relations) + len(document.entity_relations)
            reached += sum(key in pairs for key in _collect_gold(document))
        return {"candidate_recall": reached / total if total else 1.0}


def _find_nearest_pair(heads: Sequence[Concept], tails: Sequence[Concept], legal: set[Keys]) -> tuple[Concept, Concept]:
    """Return the pair of legal types with the nearest starts; of equally near pairs, the first one given."""
    places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # start and index of the tails, by type
    for number, tail in enumerate(tails):
        places[tail.type].append((tail.start, number))
    for own in places.values():
        own.sort()
    best: list[tuple[int, int, int]] = []  # distance, and indices of head and tail
    for number, head in enumerate(heads):
        for type_, own in places.items():
            if (head.type, type_) not in legal:
                continue
            after = bisect_left(own, (head.start, 0))
            nearest = [own[after]] if after < len(own) else []
            if after > 0:
                nearest.append(own[bisect_left(own, (own[after - 1][0], 0))])
            best.append(min((abs(start - head.start), number, index) for start, index in nearest))
    _, first, second = min(best)
    return heads[first], tails[second]


def _collect_gold(document: Document) -> dict[tuple[bool, Keys], str]:
    """Return the relation type of each related pair; of two relations on one pair, the first by name."""
    gold: dict[tuple[bool, Keys], str] = {}
    for e in sorted(document.entity_relations, key=lambda r: r.type):
        gold.setdefault((True, (e.head, e.tail)), e.type)
    for r in sorted(document.relations, key=lambda r: r.type):
        gold.setdefault((False, (r.head, r.tail)), r.type)
    return gold


class _PairEncoder:
    """Builder of inputs with markers and context around candidates."""

    def __init__(self, formulation: MarkedPairs, context: InputContext) -> None:
        self._markers = formulation.markers
        self._is_split = formulation.segments == 2
        self._context = context
        plain = Frame.for_text(context.tokenizer)
        self._frame = Frame.for_text(context.tokenizer, context.prompt)
        self._prompt = encode_text(context.tokenizer, context.prompt) if context.prompt else []
        self._opening = len(plain.prefix)
        pair = Frame.for_pair(context.tokenizer, self._prompt)
        self._size = min(formulation.pair_tokens, context.window_tokens)
        self._size -= pair.size if self._is_split else self._frame.size
        self._markers_by_types: dict[Keys, Marks] = {}

    def _build_markers(self, head: str, tail: str) -> Marks:
        """Return the token ids of the four markers for a pair of types."""
        if (head, tail) not in self._markers_by_types:
            name = self._context.schema.describe_type
            texts = {
                "boundary": ("[s1]", "[e1]", "[s2]", "[e2]"),
                "punctuation": ("@", "@", "#", "#"),
                "typed": (f"[ {name(head)} :", "]", f"( {name(tail)} :", ")"),
            }[self._markers]
            a, b, c, d = (encode_text(self._context.tokenizer, f" {text}") for text in texts)
            self._markers_by_types[head, tail] = (a, b, c, d)
        return self._markers_by_types[head, tail]

    def encode_candidate(
        self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], candidate: Candidate, targets: tuple[int, ...]
    ) -> Example:
        """Build the input of one candidate.

        Args:
            ids: Token ids of the document.
            offsets: Start and end offset of each token.
            candidate: The candidate.
            targets: Its label; empty for prediction.
        """
        head, tail = _find_token_range(offsets, candidate.head), _find_token_range(offsets, candidate.tail)
        open_head, close_head, open_tail, close_tail = self._build_markers(candidate.head.type, candidate.tail.type)
        marks = [(head, open_head, close_head), (tail, open_tail, close_tail)]
        size = self._size - sum(map(len, (open_head, close_head, open_tail, close_tail)))
        if self._is_split:
            (first, (head_at,)), (second, (tail_at,)) = (
                _insert_markers(ids, _select_ranges(*mark[0], len(ids), size // 2), [mark]) for mark in marks
            )
            frame = Frame.for_pair(self._context.tokenizer, (*self._prompt, *first))
            positions = (0, self._opening + len(self._prompt) + head_at, len(frame.prefix) + tail_at)
            return Example(frame.wrap(second), positions, targets, second_segment=frame.second_segment)
        ranges = _select_ranges(min(head[0], tail[0]), max(head[1], tail[1]), len(ids), size)
        body, (head_at, tail_at) = _insert_markers(ids, ranges, marks)
        opening = len(self._frame.prefix)
        positions = (0, opening + head_at, opening + tail_at)
        return Example(self._frame.wrap(body), positions, targets, second_segment=self._frame.second_segment)


def _find_token_range(offsets: Sequence[tuple[int, int]], concept: Concept) -> tuple[int, int]:
    """Return the half-open range of tokens that overlap a concept, at least one token."""
    first = bisect_right(offsets, concept.start, key=lambda o: o[1])
    last = bisect_left(offsets, concept.end, key=lambda o: o[0])
    first = min(first, len(offsets) - 1)
    return first, max(first + 1, last)


def _select_ranges(first: int, last: int, tokens: int, size: int) -> list[tuple[int, int]]:
    """Select the ranges of tokens that fit into an input.

    Args:
        first: First token that should be included.
        last: One past the last token that should be included.
        tokens: Number of tokens of the document.
        size: Number of tokens that fit.

    Returns:
        One range with context on both sides, or the beginning and the end of a range that is too long.
    """
    spare = size - (last - first)
    if spare < 0:
        return [(first, first + size // 2), (last - (size - size // 2), last)]
    begin = max(0, first - spare // 2)
    stop = min(tokens, begin + size)
    return [(max(0, stop - size), stop)]


def _insert_markers(
    ids: Sequence[int],
    ranges: Sequence[tuple[int, int]],
    marks: Sequence[tuple[tuple[int, int], list[int], list[int]]],
) -> tuple[list[int], list[int]]:
    """Insert markers into ranges of tokens.

    Args:
        ids: Token ids of the document.
        ranges: Half-open ranges of tokens to include.
        marks: Range of tokens, opening marker and closing marker of each concept.

    Returns:
        Token ids, and the index of each opening marker. If a concept begins outside the ranges, its marker is inserted
        at the nearest position inside.
    """
    inside = sorted({at for begin, stop in ranges for at in (begin, stop)})
    low, high = inside[0], inside[-1]

    def clip(at: int) -> int:
        at = min(max(at, low), high)
        for (_, stop), (begin, _) in itertools.pairwise(ranges):
            if stop < at < begin:
                return stop if at - stop <= begin - at else begin
        return at

    events: list[tuple[int, int, int, list[int]]] = []  # place; 0 closing, 1 opening; concept; marker
    for number, ((first, last), opening, closing) in enumerate(marks):
        events += [(clip(first), 1, number, opening), (clip(last), 0, number, closing)]
    events.sort(key=lambda event: event[:2])
    out: list[int] = []
    positions = [0] * len(marks)
    for begin, stop in ranges:
        at = begin
        while events and events[0][0] <= stop:
            place, is_opening, number, tokens = events.pop(0)
            out += ids[at:place]
            at = max(at, place)
            if is_opening:
                positions[number] = len(out)
            out += tokens
        out += ids[at:stop]
    return out, positions
