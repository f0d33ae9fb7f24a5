"""Documents and their annotations.

Offsets count Unicode code points of the document's text as read, half-open. The classes are frozen, and
their ``repr`` hides the text, so that a traceback or a log line cannot print a note. They also define the
lines of clinie's JSONL format, hence the strict pydantic settings.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from clinie_core.errors import Problem

__all__ = [
    "Annotation",
    "Attribute",
    "Concept",
    "Corpus",
    "Document",
    "EntityRelation",
    "Equivalence",
    "Normalization",
    "Note",
    "Relation",
    "Section",
    "Span",
    "find_overlapping_spans",
]


class _ForbidExtraKeys:
    """Base of dataclasses for which pydantic rejects unknown keys."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


@dataclass(frozen=True, order=True, slots=True)
class Span(_ForbidExtraKeys):
    """A range of text from ``start`` to ``end`` (exclusive), in code points.

    Raises:
        ValueError: Unless ``0 <= start < end``.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span needs 0 <= start < end, found {self.start}:{self.end}")


def find_overlapping_spans(spans: Sequence[Span], start: int, end: int) -> tuple[int, int] | None:
    """Return the indices of the first and last span that overlap a range of text.

    Args:
        spans: Disjoint spans, sorted by their offsets, such as tokens.
        start: First code point of the range.
        end: One past its last code point.

    Returns:
        Both indices, inclusive; None if no span overlaps.
    """
    first = bisect_right(spans, start, key=lambda span: span.end)
    last = bisect_left(spans, end, key=lambda span: span.start) - 1
    return (first, last) if first <= last else None


@dataclass(frozen=True, slots=True)
class Concept(_ForbidExtraKeys):
    """A typed mention with one span, or several if it is discontinuous."""

    id: str
    type: str
    spans: tuple[Span, ...]

    @property
    def start(self) -> int:
        """First code point of the first span."""
        return self.extent[0]

    @property
    def end(self) -> int:
        """One past the last code point of the last span."""
        return self.extent[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Smallest start and largest end of the spans."""
        spans = self.spans
        if len(spans) == 1:
            return spans[0].start, spans[0].end
        return min(span.start for span in spans), max(span.end for span in spans)


@dataclass(frozen=True, slots=True)
class Relation(_ForbidExtraKeys):
    """A typed, directed relation from one concept (``head``) to another (``tail``), given by their ids."""

    id: str
    type: str
    head: str
    tail: str


@dataclass(frozen=True, slots=True)
class Attribute(_ForbidExtraKeys):
    """A property of a concept or of a relation of either kind (``target``, its id); ``value`` is None for a flag."""

    id: str
    type: str
    target: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Normalization(_ForbidExtraKeys):
    """The terminology entry of a concept (``target``, its id), such as ``MeSH`` and ``D008094``."""

    id: str
    target: str
    database: str
    reference: str
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Equivalence(_ForbidExtraKeys):
    """A set of concepts, given by their ids, that a symmetric relation links."""

    type: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note(_ForbidExtraKeys):
    """An annotator's comment on a concept, relation or attribute (``target``, its id)."""

    id: str
    type: str
    target: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EntityRelation(_ForbidExtraKeys):
    """A typed, directed document-level relation between two terminology entries."""

    id: str
    type: str
    head: str
    tail: str


Annotation = Concept | Relation | Attribute | Normalization | Note | EntityRelation


@dataclass(frozen=True, slots=True)
class Section(_ForbidExtraKeys):
    """A named section of the text, such as a title."""

    type: str
    span: Span


@dataclass(frozen=True, slots=True)
class Document(_ForbidExtraKeys):
    """A text with its annotations; ``metadata`` contains further fields of its file."""

    id: str
    text: str = field(repr=False)
    concepts: tuple[Concept, ...] = field(default=(), repr=False)
    relations: tuple[Relation, ...] = field(default=(), repr=False)
    attributes: tuple[Attribute, ...] = field(default=(), repr=False)
    normalizations: tuple[Normalization, ...] = field(default=(), repr=False)
    equivalences: tuple[Equivalence, ...] = field(default=(), repr=False)
    notes: tuple[Note, ...] = field(default=(), repr=False)
    entity_relations: tuple[EntityRelation, ...] = field(default=(), repr=False)
    sections: tuple[Section, ...] = field(default=(), repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @property
    def annotations(self) -> Iterator[Annotation]:
        """All annotations of the document that have an id."""
        kinds: tuple[tuple[Annotation, ...], ...] = (
            self.concepts,
            self.relations,
            self.attributes,
            self.normalizations,
            self.notes,
            self.entity_relations,
        )
        for kind in kinds:
            yield from kind

    def mention(self, concept: Concept) -> str:
        """Return the concept's text, with its spans joined by blanks."""
        return " ".join(self.text[s.start : s.end] for s in concept.spans)


@dataclass(frozen=True)
class Corpus:
    """Documents by split: ``train``, ``dev`` and ``test``.

    Args:
        splits: The documents.
        notices: Warnings, and the annotations and documents that were left out on request when the corpus was read.
    """

    splits: Mapping[str, tuple[Document, ...]] = field(repr=False)
    notices: tuple[Problem, ...] = ()

    def __getitem__(self, split: str) -> tuple[Document, ...]:
        return self.splits.get(split, ())

    def concept_types(self, split: str | None = None) -> tuple[str, ...]:
        """Return the occurring types, sorted so that label indices do not depend on the order of files."""
        return tuple(sorted(self.count_types(split)))

    def count_types(self, split: str | None = None) -> Counter[str]:
        """Count the concepts of each type, in one split or in all."""
        names = self.splits if split is None else (split,)
        return Counter(c.type for name in names for doc in self[name] for c in doc.concepts)

    def merge_types(self, types: Mapping[str, Iterable[str]]) -> Corpus:
        """Rename concept types and keep all types that are not listed.

        Args:
            types: Maps each new type to the types that it replaces, ``{"Disease": ["Modifier", ...]}``;
                ``"*"`` matches every other type.
        """
        renamed = {old: new for new, olds in types.items() for old in olds}
        if all(renamed.get(t, renamed.get("*", t)) == t for t in self.count_types()):
            return self

        def rename(document: Document) -> Document:
            concepts = tuple(
                Concept(c.id, renamed.get(c.type, renamed.get("*", c.type)), c.spans) for c in document.concepts
            )
            return replace(document, concepts=concepts)

        return self._map_documents(rename)

    def restrict_types(self, concept_types: Collection[str], relation_types: Collection[str]) -> Corpus:
        """Keep only some types, and only the annotations whose targets are kept.

        Args:
            concept_types: Concept types to keep; all if empty.
            relation_types: Types of relations between concepts or entries to keep; all if empty.
        """

        def restrict(document: Document) -> Document:
            concepts = tuple(c for c in document.concepts if not concept_types or c.type in concept_types)
            kept = {c.id for c in concepts}
            wanted = [r for r in document.relations if not relation_types or r.type in relation_types]
            relations = tuple(r for r in wanted if {r.head, r.tail} <= kept)
            entity_relations = tuple(
                r for r in document.entity_relations if not relation_types or r.type in relation_types
            )
            targets = kept | {r.id for r in relations} | {r.id for r in entity_relations}
            return replace(
                document,
                concepts=concepts,
                relations=relations,
                attributes=tuple(a for a in document.attributes if a.target in targets),
                normalizations=tuple(n for n in document.normalizations if n.target in kept),
                equivalences=tuple(e for e in document.equivalences if kept.issuperset(e.members)),
                notes=tuple(n for n in document.notes if n.target in targets),
                entity_relations=entity_relations,
            )

        return self._map_documents(restrict) if concept_types or relation_types else self

    def _map_documents(self, change: Callable[[Document], Document]) -> Corpus:
        splits = {name: tuple(change(doc) for doc in docs) for name, docs in self.splits.items()}
        return Corpus(splits, self.notices)

    @cached_property
    def _split_digests(self) -> dict[str, str]:
        return {name: _compute_digest(documents) for name, documents in self.splits.items()}

    def digest(self, split: str | None = None) -> str:
        """Return a SHA-256 of texts and annotations, of one split or of all; it does not reveal text."""
        if split is not None:
            return self._split_digests[split]
        return hashlib.sha256(json.dumps(self._split_digests, sort_keys=True).encode()).hexdigest()


def _compute_digest(documents: Iterable[Document]) -> str:
    state = hashlib.sha256()
    for doc in sorted(documents, key=lambda d: d.id):
        row = [
            doc.id,
            doc.text,
            sorted([c.id, c.type, [[s.start, s.end] for s in c.spans]] for c in doc.concepts),
            sorted([r.id, r.type, r.head, r.tail] for r in doc.relations),
            sorted([a.id, a.type, a.target, a.value or ""] for a in doc.attributes),
            sorted([n.id, n.target, n.database, n.reference] for n in doc.normalizations),
            sorted([r.id, r.type, r.head, r.tail] for r in doc.entity_relations),
        ]
        state.update(json.dumps(row).encode())
    return state.hexdigest()
