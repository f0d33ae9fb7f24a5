"""Number of annotated concepts that a formulation cannot express, whatever its model predicts.

A formulation that labels or selects units of the text can only predict concepts that begin and end with a
unit. Flat labels express one concept per unit, and a span is predicted only from the window that owns its
first unit. Like the labels for training, the counts keep the longest of overlapping concepts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from clinie_core.data.bio_tagging import build_bio_labels, tag_units
from clinie_core.data.document import Concept, Document, Span, find_overlapping_spans
from clinie_core.encoding.windows import TokenizedDocument, Window

__all__ = ["LossReason", "RepresentableCounts", "count_representable", "select_distinct"]

LossReason = Literal[
    "unit boundary",
    "overlap",
    "discontinuous",
    "window",
    "ambiguous occurrence",
    "answer length",
    "answer text",
    "unknown type",
]
"""Why a concept cannot be expressed: it does not begin and end with a unit, it shares a unit with another
concept, it has several spans, or it is not inside a window. With generated answers also: its text is found at
another place first, the answer is longer than the limit, the tokenizer or template changes its text, or no training
document has its type."""


@dataclass(frozen=True)
class RepresentableCounts:
    """Counts of distinct concepts of a split.

    Args:
        concepts: Number of concepts by type.
        lost: Number of concepts that cannot be expressed, by reason and type.
    """

    concepts: Counter[str]
    lost: Mapping[LossReason, Counter[str]]

    @classmethod
    def of(cls, concepts: Iterable[Concept], lost: Iterable[tuple[Concept, LossReason]]) -> RepresentableCounts:
        """Count concepts, and those of them that are lost."""
        by_reason: dict[LossReason, Counter[str]] = {reason: Counter() for reason in get_args(LossReason)}
        for concept, reason in lost:
            by_reason[reason][concept.type] += 1
        return cls(Counter(concept.type for concept in concepts), by_reason)

    def __add__(self, other: RepresentableCounts) -> RepresentableCounts:
        lost = {reason: self.lost[reason] + other.lost[reason] for reason in self.lost}
        return RepresentableCounts(self.concepts + other.concepts, lost)

    @property
    def share(self) -> float:
        """Share of the concepts that can be expressed, in [0, 1]; 1 without concepts."""
        total = self.concepts.total()
        return 1 - sum(counts.total() for counts in self.lost.values()) / total if total else 1.0

    def by_type(self) -> dict[str, float]:
        """Return the share of each type, in [0, 1]."""
        lost = sum(self.lost.values(), Counter[str]())
        return {type_: 1 - lost[type_] / count for type_, count in sorted(self.concepts.items())}

    def by_reason(self) -> dict[str, int]:
        """Return the number of lost concepts for each reason that occurs."""
        return {reason: counts.total() for reason, counts in self.lost.items() if counts}

    def as_json(self) -> dict[str, Any]:
        """Return the counts as a JSON value."""
        return {
            "concepts": self.concepts.total(),
            "representable": self.share,
            "by_type": self.by_type(),
            "lost": self.by_reason(),
        }


def count_representable(
    documents: Iterable[Document],
    units: Iterable[Sequence[Span] | TokenizedDocument],
    *,
    flat: bool,
) -> RepresentableCounts:
    """Count the concepts that the units of documents can and cannot express.

    Args:
        documents: Annotated documents.
        units: The units of each document, or its tokens if a concept must lie inside a window.
        flat: Whether each unit belongs to at most one concept.
    """
    total: list[Concept] = []
    lost: list[tuple[Concept, LossReason]] = []
    for document, own in zip(documents, units, strict=True):
        concepts = select_distinct(document.concepts)
        total += concepts
        spans, windows = (own.units, own.windows) if isinstance(own, TokenizedDocument) else (own, None)
        lost += _find_lost(spans, windows, concepts, flat=flat)
    return RepresentableCounts.of(total, lost)


def select_distinct(concepts: Iterable[Concept]) -> list[Concept]:
    """Return the concepts without those of equal type and spans."""
    return list({(c.type, c.spans): c for c in concepts}.values())


def _find_lost(
    units: Sequence[Span], windows: Sequence[Window] | None, concepts: Sequence[Concept], *, flat: bool
) -> Iterator[tuple[Concept, LossReason]]:
    """Yield each concept that cannot be expressed, with the reason."""
    displaced: set[Concept] = set()
    if flat:
        labels = build_bio_labels(sorted({c.type for c in concepts}))
        displaced.update(tag_units(units, concepts, labels)[1])
    for concept in concepts:
        covered = find_overlapping_spans(units, concept.start, concept.end)
        if len(concept.spans) > 1:
            yield concept, "discontinuous"
        elif covered is None or (units[covered[0]].start, units[covered[1]].end) != concept.extent:
            yield concept, "unit boundary"
        elif concept in displaced:
            yield concept, "overlap"
        elif windows is not None and not _is_in_owning_window(windows, *covered):
            yield concept, "window"


def _is_in_owning_window(windows: Sequence[Window], first: int, last: int) -> bool:
    """Return whether the window that owns the first unit of a span contains the last one."""
    owner = windows[bisect_right(windows, first, key=lambda window: window.owned_units[1])]
    return last < owner.first_unit + len(owner.positions)
