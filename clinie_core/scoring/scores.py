"""Counts and the rates derived from them, by type, over all types, and by document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALL_TYPES", "Counts", "Scores", "Triple"]

Triple = tuple[float, float, float]

ALL_TYPES = ""
"""Type name of the counts in modes that ignore types."""


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, with the rates derived from them.

    In mode ``partial`` a prediction with a wrong boundary counts a half.
    """

    tp: float = 0
    fp: float = 0
    fn: float = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """``tp / (tp + fp)``, in [0, 1]; 0 if nothing is predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """``tp / (tp + fn)``, in [0, 1]; 0 if nothing is annotated."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        """``2 tp / (2 tp + fp + fn)``, in [0, 1]; 0 if all three are 0."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 0.0


class Scores:
    """Counts of every document, by mode and type.

    Args:
        modes: Names of the counting modes.
        documents: For each document the counts by mode and type: true positives, false positives, false negatives.
    """

    def __init__(self, modes: Sequence[str], documents: Iterable[Mapping[str, Mapping[str, Triple]]]) -> None:
        rows = list(documents)
        self.modes = tuple(modes)
        self.types = tuple(sorted({type_ for row in rows for counts in row.values() for type_ in counts}))
        column = {type_: i for i, type_ in enumerate(self.types)}
        self._table = {mode: np.zeros((len(rows), len(self.types), 3)) for mode in modes}  # [documents, types, 3]
        for number, row in enumerate(rows):
            for mode, by_type in row.items():
                for type_, counts in by_type.items():
                    self._table[mode][number, column[type_]] = counts

    @classmethod
    def combine(cls, first: Scores, second: Scores) -> Scores:
        """Add the scores of two kinds of annotation of the same documents; counts of equal type names are summed."""
        joined = cls(first.modes, ())
        joined.types = tuple(sorted({*first.types, *second.types}))
        column = {type_: i for i, type_ in enumerate(joined.types)}
        for mode in joined.modes:
            table = np.zeros((len(first._table[mode]), len(joined.types), 3))  # [documents, types, 3]
            for part in (first, second):
                table[:, [column[type_] for type_ in part.types]] += part._table[mode]
            joined._table[mode] = table
        return joined

    def by_type(self, mode: str) -> dict[str, Counts]:
        """Return the counts of each type over all documents."""
        sums = self._table[mode].sum(axis=0)  # [types, 3]
        return {type_: _to_counts(row) for type_, row in zip(self.types, sums, strict=True)}

    def micro(self, mode: str) -> Counts:
        """Return the counts summed over all types and documents."""
        return _to_counts(self._table[mode].sum(axis=(0, 1)))

    def macro_f1(self, mode: str) -> float:
        """Return the mean F1 of the types; 0 without types."""
        rates = [counts.f1 for counts in self.by_type(mode).values()]
        return sum(rates) / len(rates) if rates else 0.0

    def document_macro(self, mode: str) -> dict[str, float]:
        """Return the mean rates of the documents, which the scorer of 2018 n2c2 track 2 calls macro."""
        rows = [_to_counts(row) for row in self.documents(mode)]
        names = ("precision", "recall", "f1")
        return {name: sum(float(getattr(r, name)) for r in rows) / len(rows) if rows else 0.0 for name in names}

    def documents(self, mode: str) -> NDArray[np.float64]:
        """Return the counts of each document over all types.

        Returns:
            True positives, false positives and false negatives, ``[documents, 3]``.
        """
        total: NDArray[np.float64] = self._table[mode].sum(axis=1)
        return total

    def documents_by_type(self, mode: str) -> dict[str, NDArray[np.float64]]:
        """Return the counts of each document by type, each ``[documents, 3]``."""
        return {type_: self._table[mode][:, i] for i, type_ in enumerate(self.types)}

    def metrics(self) -> dict[str, float]:
        """Return the micro-averaged rates as flat metrics such as ``strict_f1``, each in [0, 1]."""
        return {
            f"{mode}_{rate}": float(getattr(counts, rate))
            for mode, counts in ((mode, self.micro(mode)) for mode in self.modes)
            for rate in ("f1", "precision", "recall")
        }


def _to_counts(row: NDArray[np.float64]) -> Counts:
    return Counts(*(float(value) for value in row))
