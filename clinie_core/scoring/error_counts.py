"""Counts of errors of one model on a split, stored with a checkpoint so that a report can explain its score.

The file contains names of annotation types and numbers, and neither names nor texts of documents.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document
from clinie_core.scoring.count_files import read_counts
from clinie_core.scoring.error_analysis import Kind, classify_concepts, classify_relations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clinie_core.scoring.scores import Scores

__all__ = ["FILE", "ErrorCounts", "ErrorTable"]

FILE = "error_counts.json"
LENGTHS = (1_000, 3_000, 10_000)
"""Ends of the classes of document lengths, in characters."""
DISTANCES = (50, 150, 500)
"""Ends of the classes of distances between the ends of a relation, in characters."""
FOUND = ("no concept found", "one concept found", "both concepts found")

ErrorTable = Mapping[str, Mapping[Kind, int]]
"""Number of outcomes of each kind, by class: a type, a length or a distance."""


@dataclass(frozen=True)
class ErrorCounts:
    """Counts of errors.

    Args:
        documents: Number of documents.
        types: For each annotation type the strict counts of the documents that have any: index of the document,
            true positives, false positives, false negatives, ``[rows, 4]``.
        tables: Outcomes by kind. The keys are ``concepts by type`` and ``concepts by length``; the same for relations,
            with ``relations by distance``, and ``relations by concepts``: whether their concepts were found.
    """

    documents: int
    types: Mapping[str, Sequence[Sequence[float]]]
    tables: Mapping[str, ErrorTable]

    @classmethod
    def count(cls, task: Task, pairs: Sequence[tuple[Document, Document]], scores: Scores) -> ErrorCounts:
        """Count the errors of predictions.

        Args:
            task: The extraction task.
            pairs: For each document its gold and its predicted version.
            scores: Scores of the same documents.
        """
        tables: defaultdict[str, defaultdict[str, Counter[Kind]]] = defaultdict(lambda: defaultdict(Counter))

        for gold, predicted in pairs:
            rows = [] if task == "relations" else list(_classify_concepts(gold, predicted))
            rows += [] if task == "concepts" else _classify_relations(gold, predicted)
            for table, row, kind in rows:
                tables[table][row][kind] += 1
        ordered = {name: {row: dict(own[row]) for row in sorted(own, key=_order)} for name, own in tables.items()}
        types = {}
        for type_, counts in scores.documents_by_type("strict").items():
            used = np.flatnonzero(counts.any(axis=1))
            types[type_] = [[int(index), *counts[index].tolist()] for index in used]
        return cls(len(pairs), types, ordered)

    def expand(self, type_: str) -> NDArray[np.float64]:
        """Return the counts of a type by document.

        Returns:
            True positives, false positives and false negatives, ``[documents, 3]``.
        """
        counts = np.zeros((self.documents, 3))
        for row, *values in self.types[type_]:
            counts[int(row)] = values
        return counts

    def write(self, folder: Path) -> None:
        """Write the counts into a checkpoint's folder."""
        content = {"documents": self.documents, "types": self.types, "tables": self.tables}
        (folder / FILE).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ErrorCounts:
        """Read the counts from a folder.

        Raises:
            InputError: If the folder has no counts.
        """
        content = read_counts(folder, FILE)
        return cls(content["documents"], content["types"], content["tables"])


def _classify_concepts(gold: Document, predicted: Document) -> Iterator[tuple[str, str, Kind]]:
    """Yield the table, the class and the kind of each outcome."""
    length = _name_class(len(gold.text), LENGTHS)
    for outcome in classify_concepts(gold, predicted):
        own = outcome.gold or outcome.predicted
        assert own is not None, "an outcome has at least one side"
        yield "concepts by type", own.type, outcome.kind
        yield "concepts by length", length, outcome.kind


def _classify_relations(gold: Document, predicted: Document) -> Iterator[tuple[str, str, Kind]]:
    """Yield the table, the class and the kind of each outcome."""
    length = _name_class(len(gold.text), LENGTHS)
    annotated, extracted = ({c.id: c for c in document.concepts} for document in (gold, predicted))
    found = {(c.type, c.extent) for c in predicted.concepts}
    for outcome in classify_relations(gold, predicted):
        own = outcome.gold or outcome.predicted
        assert own is not None, "an outcome has at least one side"
        concepts = annotated if outcome.gold else extracted
        ends = concepts[own.head], concepts[own.tail]
        yield "relations by type", own.type, outcome.kind
        yield "relations by length", length, outcome.kind
        yield "relations by distance", _name_class(_measure_distance(*ends), DISTANCES), outcome.kind
        if outcome.gold is not None:
            yield "relations by concepts", FOUND[sum((c.type, c.extent) in found for c in ends)], outcome.kind


def _measure_distance(head: Concept, tail: Concept) -> int:
    """Return the number of characters between two concepts; 0 if they overlap."""
    return max(0, tail.start - head.end, head.start - tail.end)


def _name_class(value: int, ends: Sequence[int]) -> str:
    at = bisect_right(ends, value)
    if at == 0:
        return f"under {ends[0]:,} characters"
    return f"{ends[at - 1]:,} to {ends[at]:,} characters" if at < len(ends) else f"from {ends[-1]:,} characters"


def _order(row: str) -> tuple[int, str]:
    """Return the key that sorts classes of numbers by their numbers, and types by name."""
    names = [_name_class(value, ends) for ends in (LENGTHS, DISTANCES) for value in (0, *ends)]
    return (names.index(row) if row in names else -1, row)
