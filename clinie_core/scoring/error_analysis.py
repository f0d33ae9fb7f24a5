"""Classification of predictions by kind of error: missed, spurious, boundary, type, or both.

Each gold annotation is paired with at most one prediction. Identical ones are paired first, then those with equal
boundaries, then overlapping ones of the same type, then other overlapping ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from clinie_core.data.document import Concept, Document, Relation

__all__ = ["KINDS", "Kind", "Outcome", "classify_concepts", "classify_relations"]

Kind = Literal["correct", "missed", "spurious", "boundary", "type", "both"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Item = TypeVar("Item")
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """A gold annotation and the prediction for it.

    Args:
        kind: ``correct``; ``missed`` without a prediction; ``spurious`` without a gold annotation; ``boundary`` or
            ``type`` if only that differs; ``both`` if both differ.
        gold: The gold annotation; None for ``spurious``.
        predicted: The prediction; None for ``missed``.
    """

    kind: Kind
    gold: Item | None
    predicted: Item | None


@dataclass(frozen=True)
class _View(Generic[Item]):
    """Compared properties of an annotation: its type with those of its ends, and its ranges of text."""

    item: Item
    type: tuple[str, ...]
    ranges: Ranges


def classify_concepts(gold: Document, predicted: Document) -> list[Outcome[Concept]]:
    """Classify the concepts of a document.

    Args:
        gold: The annotated document.
        predicted: The document with predictions.

    Returns:
        The outcomes; every concept of both sides occurs once, except duplicates.
    """

    def view(document: Document) -> list[_View[Concept]]:
        return [_View(concept, (concept.type,), (concept.extent,)) for concept in document.concepts]

    return _pair(view(gold), view(predicted))


def classify_relations(gold: Document, predicted: Document) -> list[Outcome[Relation]]:
    """Classify the relations of a document by their type and by the boundaries of both ends.

    Args:
        gold: The annotated document.
        predicted: The document with predictions.

    Returns:
        The outcomes; every relation of both sides occurs once, except duplicates.
    """

    def view(document: Document) -> list[_View[Relation]]:
        concepts = {concept.id: concept for concept in document.concepts}
        ends = [(r, concepts[r.head], concepts[r.tail]) for r in document.relations]
        return [_View(r, (r.type, head.type, tail.type), (head.extent, tail.extent)) for r, head, tail in ends]

    return _pair(view(gold), view(predicted))


def _pair(gold: Iterable[_View[Item]], predicted: Iterable[_View[Item]]) -> list[Outcome[Item]]:
    """Pair both sides, the closest pairs first."""
    annotated, extracted = _index(gold), _index(predicted)
    same = [key for key in annotated if key in extracted]
    found = [Outcome[Item]("correct", annotated.pop(key).item, extracted.pop(key).item) for key in same]
    left, right = list(annotated.values()), list(extracted.values())
    steps: tuple[tuple[Kind, Callable[[_View[Item], _View[Item]], bool]], ...] = (
        ("type", lambda g, p: g.ranges == p.ranges),
        ("boundary", lambda g, p: g.type == p.type and _overlap(g.ranges, p.ranges)),
        ("both", lambda g, p: _overlap(g.ranges, p.ranges)),
    )
    for kind, is_pair in steps:
        for g in list(left):
            match = next((p for p in right if is_pair(g, p)), None)
            if match is not None:
                left.remove(g)
                right.remove(match)
                found.append(Outcome(kind, g.item, match.item))
    found += [Outcome("missed", g.item, None) for g in left]
    return found + [Outcome("spurious", None, p.item) for p in right]


def _index(views: Iterable[_View[Item]]) -> dict[tuple[tuple[str, ...], Ranges], _View[Item]]:
    """Return the annotations by type and ranges, which removes duplicates."""
    return {(view.type, view.ranges): view for view in views}


def _overlap(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> bool:
    return all(a[0] < b[1] and b[0] < a[1] for a, b in zip(first, second, strict=True))
