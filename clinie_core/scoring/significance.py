"""How far scores can be trusted: intervals and paired tests that resample documents.

Sources: Efron and Tibshirani 1993, *An Introduction to the Bootstrap*; Noreen 1989, *Computer-Intensive
Methods for Testing Hypotheses* (approximate randomization). Documents are what is resampled, since
the concepts of one note are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SIGNIFICANCE_LEVEL",
    "Comparison",
    "Rate",
    "bootstrap_interval",
    "compare",
    "compute_rates",
    "draw_document_weights",
    "is_significant",
    "superiority_p_value",
]

Rate = Literal["precision", "recall", "f1"]
SIGNIFICANCE_LEVEL = 0.05
"""Above this p-value, or with 0 in the interval, a comparison is no evidence."""
BLOCK = 1_000
"""Resamples at a time, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same documents.

    Args:
        difference: Rate of the first less that of the second.
        low: Lower end of the bootstrap interval of the difference.
        high: Its upper end.
        bootstrap_p: Two-sided, by the paired bootstrap: how often the sign of the difference turns.
        randomization_p: Two-sided, by approximate randomization: how often a difference at least as
            large comes from exchanging the systems' documents at random.
    """

    difference: float
    low: float
    high: float
    bootstrap_p: float
    randomization_p: float

    @property
    def p(self) -> float:
        """The p-value that decides."""
        return self.randomization_p

    @property
    def significant(self) -> bool:
        """Whether the documents tell the systems apart."""
        return is_significant(self.p, self.low, self.high)


def is_significant(p: float, low: float, high: float) -> bool:
    """Return whether the p-value is at most :data:`SIGNIFICANCE_LEVEL` and the interval excludes 0."""
    return p <= SIGNIFICANCE_LEVEL and (low > 0 or high < 0)


def compute_rates(sums: NDArray[np.float64], rate: Rate) -> NDArray[np.float64]:
    """Rates ``[...]`` from sums of counts ``[..., 3]``; 0 where there is nothing to divide by."""
    tp, fp, fn = sums[..., 0], sums[..., 1], sums[..., 2]
    top = 2 * tp if rate == "f1" else tp
    bottom = {"precision": tp + fp, "recall": tp + fn, "f1": 2 * tp + fp + fn}[rate]
    result: NDArray[np.float64] = np.divide(top, bottom, out=np.zeros_like(tp), where=bottom > 0)
    return result


def draw_document_weights(documents: int, resamples: int, draw: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often each document is in each resample, ``[block, documents]``."""
    for begin in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - begin)
        drawn = draw.integers(0, documents, size=(rows, documents), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * documents
        counts = np.bincount(drawn.ravel(), minlength=rows * documents)
        yield counts.reshape(rows, documents).astype(np.float64)


def bootstrap_interval(
    documents: NDArray[np.float64],
    rate: Rate = "f1",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 13,
) -> tuple[float, float]:
    """A percentile bootstrap interval of a micro rate.

    Args:
        documents: Counts by document, ``[documents, 3]``; see :meth:`Scores.documents`.
        rate: Which rate.
        level: How much of the resamples the interval holds, in (0, 1).
        resamples: How many.
        seed: Equal seeds give equal intervals.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: Without documents.
    """
    if not len(documents):
        raise ValueError("an interval needs at least one document")
    draw = np.random.default_rng(seed)
    found = np.concatenate(
        [compute_rates(w @ documents, rate) for w in draw_document_weights(len(documents), resamples, draw)]
    )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    rate: Rate = "f1",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 13,
) -> Comparison:
    """Compare two systems that predicted the same documents.

    Args:
        first: Counts of one system by document, ``[documents, 3]``.
        second: Counts of the other for the same documents in the same order.
        rate: Which rate.
        level: How much of the resamples the interval holds, in (0, 1).
        resamples: How many, for each of the two tests.
        seed: Equal seeds give equal results.

    Raises:
        ValueError: If the documents are not as many, or none.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"both systems need the same documents, found {len(first)} and {len(second)}")
    draw = np.random.default_rng(seed)
    observed = float(compute_rates(first.sum(axis=0), rate) - compute_rates(second.sum(axis=0), rate))
    both = np.concatenate([first, second], axis=1)  # [documents, 6]
    resampled = np.concatenate([w @ both for w in draw_document_weights(len(first), resamples, draw)])  # [resamples, 6]
    differences = compute_rates(resampled[:, :3], rate) - compute_rates(resampled[:, 3:], rate)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    turned = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    exchanged = _permuted_differences(first, second, rate, resamples, draw)
    as_large = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    return Comparison(
        difference=observed,
        low=float(low),
        high=float(high),
        bootstrap_p=min(1.0, 2 * (turned + 1) / (resamples + 1)),
        randomization_p=(as_large + 1) / (resamples + 1),
    )


def superiority_p_value(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    rate: Rate = "f1",
    *,
    resamples: int = 20_000,
    seed: int = 13,
) -> float:
    """One-sided p-value of the claim that the first system is better, by paired bootstrap over documents.

    Args:
        first: Counts of one system by document, ``[documents, 3]``.
        second: Counts of the other for the same documents in the same order.
        rate: Which rate.
        resamples: How many; the least p-value is one over so many.
        seed: Equal seeds give equal results.

    Raises:
        ValueError: If the documents are not as many, or none.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"both systems need the same documents, found {len(first)} and {len(second)}")
    draw = np.random.default_rng(seed)
    both = np.concatenate([first, second], axis=1)  # [documents, 6]
    not_better = 0
    for weights in draw_document_weights(len(first), resamples, draw):
        sums = weights @ both  # [block, 6]
        not_better += int((compute_rates(sums[:, :3], rate) <= compute_rates(sums[:, 3:], rate)).sum())
    return (not_better + 1) / (resamples + 1)


def _permuted_differences(
    first: NDArray[np.float64], second: NDArray[np.float64], rate: Rate, resamples: int, draw: np.random.Generator
) -> NDArray[np.float64]:
    """Differences after exchanging the two systems' counts in about half of the documents."""
    shift = second - first  # [documents, 3]
    parts = []
    for begin in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - begin)
        swap = draw.integers(0, 2, size=(rows, len(first)), dtype=np.int8).astype(np.float64)
        moved = swap @ shift  # [rows, 3]
        parts.append(compute_rates(first.sum(axis=0) + moved, rate) - compute_rates(second.sum(axis=0) - moved, rate))
    return np.concatenate(parts)
