"""Marked-pair classification: one input for each candidate pair of concepts, its relation as the label.

Candidates are ordered pairs whose types training has seen linked and whose sentences are near enough.
A relation beyond that can never be predicted, so the share that the rule covers is reported as
``candidate_recall``. Markers are plain text that any tokenizer has pieces for: special tokens would need
embeddings, which a frozen backbone could not learn.

Relations between terminology entries are classified by the pair of their mentions that stand nearest.
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
"""Ids of two concepts, or references of two entries."""
Marks = tuple[list[int], list[int], list[int], list[int]]
"""Tokens before and after the head, before and after the tail."""


@dataclass(frozen=True)
class Candidate:
    """Two concepts that may be related, and what the relation would join: them, or their entries."""

    head: Concept
    tail: Concept
    keys: Keys
    of_entries: bool


class MarkedPairs(Formulation[tuple[Candidate, ...]]):
    """Mark two concepts in their context and classify their relation.

    Args:
        markers: ``boundary`` puts ``[s1] [e1]`` around the head and ``[s2] [e2]`` around the tail, ``typed``
            says the types, ``punctuation`` uses ``@`` and ``#``.
        segments: 1 for one stretch of text that holds both, 2 for one around each.
        representation: Hidden states that are read: the opening token's, those of the markers before head
            and tail, or all three.
        max_distance: Most sentences between head and tail; 0 for the same sentence.
        pair_tokens: Longest input in tokens, never more than ``window_tokens``.
        negative_ratio: Pairs without a relation for each with one, in training; the rest is left out.
        none_weight: Weight of a pair without a relation in the loss.
        head_layers: Hidden layers of the head.
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
        """One example a candidate; in training only some of those without a relation."""
        types = context.schema.relation_types
        rows: list[list[tuple[Candidate, str | None]]] = []
        for document in documents:
            gold = _gold(document) if targets else {}
            rows.append([(c, gold.get((c.of_entries, c.keys))) for c in self._candidates(document, context.schema)])
        if targets:
            rows = sample_negatives(
                rows, documents, lambda row: row[1] is not None, ratio=self.negative_ratio, seed=context.seed
            )
        marking = _Marking(self, context)
        encoded = []
        tokens = context.tokenizer(
            [d.text for d in documents], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for number, kept in enumerate(rows):
            ids, offsets = tokens["input_ids"][number], tokens["offset_mapping"][number]
            examples = tuple(
                marking.example(ids, offsets, c, (types.index(label) + 1 if label else 0,) if targets else ())
                for c, label in kept
            )
            encoded.append(EncodedDocument(examples, tuple(c for c, _ in kept)))
        return tuple(encoded)

    def _candidates(self, document: Document, schema: Schema) -> Iterator[Candidate]:
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
            yield from self._entry_candidates(document, legal, sentence)

    def _entry_candidates(
        self, document: Document, legal: set[Keys], sentence: Mapping[str, int]
    ) -> Iterator[Candidate]:
        """Of each two entries the mentions that stand nearest."""
        by_id = {c.id: c for c in document.concepts}
        mentions: defaultdict[str, list[Concept]] = defaultdict(list)
        for n in document.normalizations:
            if n.target in by_id:
                mentions[n.reference].append(by_id[n.target])
        for head_entry, heads in mentions.items():
            for tail_entry, tails in mentions.items():
                pairs = [(h, t) for h in heads for t in tails if (h.type, t.type) in legal]
                if head_entry == tail_entry or not pairs:
                    continue
                head, tail = min(pairs, key=lambda pair: abs(pair[0].start - pair[1].start))
                if abs(sentence[head.id] - sentence[tail.id]) <= self.max_distance:
                    yield Candidate(head, tail, (head_entry, tail_entry), of_entries=True)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """A classifier over ``[batch, 3, hidden_size]``; label 0 stands for no relation."""
        from clinie_core.heads import PairHead

        labels = 1 + len(schema.relation_types)
        return PairHead(hidden_size, labels, self.representation, self.dropout, self.head_layers, self.none_weight)

    def decode(self, prediction: Prediction[tuple[Candidate, ...]]) -> Document:
        """The best label of each candidate among those that its types can have."""
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
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[tuple[Candidate, ...]]]
    ) -> dict[str, float]:
        """``candidate_recall``: the share of the relations that the candidate rule leaves within reach."""
        reached = total = 0
        for document, item in zip(documents, encoded, strict=True):
            pairs = {(c.of_entries, c.keys) for c in item.state}
            total += len(document.relations) + len(document.entity_relations)
            reached += sum(key in pairs for key in _gold(document))
        return {"candidate_recall": reached / total if total else 1.0}


def _gold(document: Document) -> dict[tuple[bool, Keys], str]:
    """Each related pair's type; of two relations on one pair the first by name."""
    gold: dict[tuple[bool, Keys], str] = {}
    for e in sorted(document.entity_relations, key=lambda r: r.type):
        gold.setdefault((True, (e.head, e.tail)), e.type)
    for r in sorted(document.relations, key=lambda r: r.type):
        gold.setdefault((False, (r.head, r.tail)), r.type)
    return gold


class _Marking:
    """Lays markers and context around candidates."""

    def __init__(self, formulation: MarkedPairs, context: InputContext) -> None:
        self._markers = formulation.markers
        self._two = formulation.segments == 2
        self._context = context
        plain = Frame.for_text(context.tokenizer)
        self._frame = Frame.for_text(context.tokenizer, context.prompt)
        self._prompt = encode_text(context.tokenizer, context.prompt) if context.prompt else []
        self._opening = len(plain.prefix)
        pair = Frame.for_pair(context.tokenizer, self._prompt)
        self._room = min(formulation.pair_tokens, context.window_tokens)
        self._room -= pair.size if self._two else self._frame.size
        self._known: dict[Keys, Marks] = {}

    def _marks(self, head: str, tail: str) -> Marks:
        """Tokens of the four markers of a pair of types."""
        if (head, tail) not in self._known:
            words = self._context.schema.describe_type
            texts = {
                "boundary": ("[s1]", "[e1]", "[s2]", "[e2]"),
                "punctuation": ("@", "@", "#", "#"),
                "typed": (f"[ {words(head)} :", "]", f"( {words(tail)} :", ")"),
            }[self._markers]
            a, b, c, d = (encode_text(self._context.tokenizer, f" {text}") for text in texts)
            self._known[head, tail] = (a, b, c, d)
        return self._known[head, tail]

    def example(
        self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], candidate: Candidate, targets: tuple[int, ...]
    ) -> Example:
        """The input of one candidate."""
        head, tail = _token_range(offsets, candidate.head), _token_range(offsets, candidate.tail)
        open_head, close_head, open_tail, close_tail = self._marks(candidate.head.type, candidate.tail.type)
        marks = [(head, open_head, close_head), (tail, open_tail, close_tail)]
        room = self._room - sum(map(len, (open_head, close_head, open_tail, close_tail)))
        if self._two:
            (first, (head_at,)), (second, (tail_at,)) = (
                _spliced(ids, _around(*mark[0], len(ids), room // 2), [mark]) for mark in marks
            )
            frame = Frame.for_pair(self._context.tokenizer, (*self._prompt, *first))
            places = (0, self._opening + len(self._prompt) + head_at, len(frame.prefix) + tail_at)
            return Example(frame.wrap(second), places, targets, second_segment=frame.second_segment)
        stretches = _around(min(head[0], tail[0]), max(head[1], tail[1]), len(ids), room)
        body, (head_at, tail_at) = _spliced(ids, stretches, marks)
        opening = len(self._frame.prefix)
        places = (0, opening + head_at, opening + tail_at)
        return Example(self._frame.wrap(body), places, targets, second_segment=self._frame.second_segment)


def _token_range(offsets: Sequence[tuple[int, int]], concept: Concept) -> tuple[int, int]:
    """The tokens that a concept's stretch overlaps, half-open; one token at least."""
    first = bisect_right(offsets, concept.start, key=lambda o: o[1])
    last = bisect_left(offsets, concept.end, key=lambda o: o[0])
    first = min(first, len(offsets) - 1)
    return first, max(first + 1, last)


def _around(first: int, last: int, tokens: int, room: int) -> list[tuple[int, int]]:
    """Stretches of tokens to keep: what is between first and last with context, or both ends where that is too long."""
    spare = room - (last - first)
    if spare < 0:
        return [(first, first + room // 2), (last - (room - room // 2), last)]
    begin = max(0, first - spare // 2)
    stop = min(tokens, begin + room)
    return [(max(0, stop - room), stop)]


def _spliced(
    ids: Sequence[int],
    stretches: Sequence[tuple[int, int]],
    marks: Sequence[tuple[tuple[int, int], list[int], list[int]]],
) -> tuple[list[int], list[int]]:
    """Tokens of stretches with markers laid around ranges.

    Returns:
        The tokens, and for each range the place of its opening marker; where a range begins outside the
        stretches, its marker stands at the nearest place inside.
    """
    inside = sorted({at for begin, stop in stretches for at in (begin, stop)})
    low, high = inside[0], inside[-1]

    def clipped(at: int) -> int:
        at = min(max(at, low), high)
        for (_, stop), (begin, _) in itertools.pairwise(stretches):
            if stop < at < begin:
                return stop if at - stop <= begin - at else begin
        return at

    events: list[tuple[int, int, int, list[int]]] = []  # place; closing before opening; mark; tokens
    for number, ((first, last), opening, closing) in enumerate(marks):
        events += [(clipped(first), 1, number, opening), (clipped(last), 0, number, closing)]
    events.sort(key=lambda event: event[:2])
    out: list[int] = []
    places = [0] * len(marks)
    for begin, stop in stretches:
        at = begin
        while events and events[0][0] <= stop:
            place, opens, number, tokens = events.pop(0)
            out += ids[at:place]
            at = max(at, place)
            if opens:
                places[number] = len(out)
            out += tokens
        out += ids[at:stop]
    return out, places
