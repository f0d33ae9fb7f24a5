"""Confidence intervals and paired significance tests that resample documents.

The resampled unit is the document because the concepts of one note are not independent. A micro-averaged rate
is not a mean over documents, so every statistic sums the counts of the resampled documents first.

Sources: Efron and Tibshirani 1993, *An Introduction to the Bootstrap*; Noreen 1989, *Computer-Intensive
Methods for Testing Hypotheses* (approximate randomization).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
"""Largest p-value at which a comparison counts as evidence."""
BLOCK = 1_000
"""Largest number of resamples computed at a time."""
BLOCK_ELEMENTS = 2_000_000
"""Largest number of document indices in a block of resamples, which bounds the memory."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of two systems on the same documents.

    Args:
        difference: Rate of the first system minus that of the second.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end of the bootstrap interval of the difference.
        bootstrap_p: Two-sided p-value of the paired bootstrap: how often the difference changes its sign.
        randomization_p: Two-sided p-value of approximate randomization: how often exchanging the two
            systems' documents at random gives a difference at least as large.
    """

    difference: float
    low: float
    high: float
    bootstrap_p: float
    randomization_p: float

    @property
    def p(self) -> float:
        """The p-value that decides significance, that of approximate randomization."""
        return self.randomization_p

    @property
    def significant(self) -> bool:
        """True if the documents are evidence that the two systems differ."""
        return is_significant(self.p, self.low, self.high)


def is_significant(p: float, low: float, high: float) -> bool:
    """Return whether the p-value is at most :data:`SIGNIFICANCE_LEVEL` and the interval excludes 0."""
    return p <= SIGNIFICANCE_LEVEL and (low > 0 or high < 0)


def compute_rates(sums: NDArray[np.float64], rate: Rate) -> NDArray[np.float64]:
    """Compute rates from counts.

    Args:
        sums: True positives, false positives and false negatives, ``[..., 3]``.
        rate: The rate to compute.

    Returns:
        Rates in [0, 1], ``[...]``; 0 where the denominator is 0.
    """
    tp, fp, fn = sums[..., 0], sums[..., 1], sums[..., 2]
    top = 2 * tp if rate == "f1" else tp
    bottom = {"precision": tp + fp, "recall": tp + fn, "f1": 2 * tp + fp + fn}[rate]
    result: NDArray[np.float64] = np.divide(top, bottom, out=np.zeros_like(tp), where=bottom > 0)
    return result


def draw_document_weights(documents: int, resamples: int, draw: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Draw bootstrap resamples as weights, for statistics of many systems at once.

    Args:
        documents: Number of documents.
        resamples: Number of resamples.
        draw: Random number generator.

    Yields:
        How often each document occurs in each resample of a block, ``[block, documents]``.
    """
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
    """Compute a percentile bootstrap interval of a micro-averaged rate.

    Args:
        documents: Counts by document, ``[documents, 3]``; see :meth:`Scores.documents`.
        rate: The rate.
        level: Confidence level, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling; equal seeds give equal intervals.

    Returns:
        Lower and upper end of the interval.

    Raises:
        ValueError: If there are no documents.
    """
    if not len(documents):
        raise ValueError("an interval needs at least one document")
    low, high, _ = _bootstrap(
        lambda index, axis: compute_rates(_sum_counts(documents, index, axis), rate),
        len(documents),
        level,
        resamples,
        np.random.default_rng(seed),
    )
    return low, high


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
        first: Counts of the first system by document, ``[documents, 3]``.
        second: Counts of the second system for the same documents in the same order.
        rate: The rate to compare.
        level: Confidence level of the interval, in (0, 1).
        resamples: Number of resamples of each of the two tests. Randomization is exact where the
            documents allow fewer exchanges.
        seed: Seed of the resampling; equal seeds give equal results.

    Raises:
        ValueError: If the numbers of documents differ or are 0.
    """
    _require_same_documents(first, second)
    draw = np.random.default_rng(seed)
    difference = _difference(first, second, rate)
    low, high, differences = _bootstrap(difference, len(first), level, resamples, draw)
    sign_changes = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Comparison(
        difference=float(difference(np.arange(len(first)), 0)),
        low=low,
        high=high,
        bootstrap_p=min(1.0, 2 * (sign_changes + 1) / (resamples + 1)),
        randomization_p=_randomization_p_value(first, second, rate, resamples, draw),
    )


def superiority_p_value(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    rate: Rate = "f1",
    *,
    resamples: int = 20_000,
    seed: int = 13,
) -> float:
    """Compute the one-sided p-value of the claim that the first system is better, by paired bootstrap.

    Args:
        first: Counts of the first system by document, ``[documents, 3]``.
        second: Counts of the second system for the same documents in the same order.
        rate: The rate to compare.
        resamples: Number of resamples; the smallest possible p-value is ``1 / (resamples + 1)``.
        seed: Seed of the resampling; equal seeds give equal results.

    Raises:
        ValueError: If the numbers of documents differ or are 0.
    """
    _require_same_documents(first, second)
    draw = np.random.default_rng(seed)
    _, _, differences = _bootstrap(_difference(first, second, rate), len(first), 0.95, resamples, draw)
    return (int((differences <= 0).sum()) + 1) / (resamples + 1)


Statistic = Callable[["NDArray[np.int64]", int], Any]
"""Function of document indices ``[..., documents]`` and the axis of the documents."""


def _require_same_documents(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    if first.shape != second.shape or not len(first):
        raise ValueError(f"both systems need the same documents, found {len(first)} and {len(second)}")


def _sum_counts(counts: NDArray[np.float64], index: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """Sum the counts ``[documents, 3]`` of the indexed documents along an axis of the index."""
    columns = np.ascontiguousarray(counts.T)  # one gather per count is several times faster than one of rows
    return np.stack([column[index].sum(axis=axis) for column in columns], axis=-1)


def _difference(first: NDArray[np.float64], second: NDArray[np.float64], rate: Rate) -> Statistic:
    def difference(index: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        sums = (_sum_counts(counts, index, axis) for counts in (first, second))
        of_first, of_second = (compute_rates(total, rate) for total in sums)
        return of_first - of_second

    return difference


def _block_size(documents: int) -> int:
    return max(1, min(BLOCK, BLOCK_ELEMENTS // documents))


def _bootstrap(
    statistic: Statistic, documents: int, level: float, resamples: int, draw: np.random.Generator
) -> tuple[float, float, NDArray[np.float64]]:
    """Return the ends of the percentile interval and the statistic of each resample, ``[resamples]``."""
    # As scipy.stats.bootstrap with method="percentile", without the second that the import of scipy.stats takes.
    found = []
    for begin in range(0, resamples, _block_size(documents)):
        rows = min(_block_size(documents), resamples - begin)
        found.append(statistic(draw.integers(0, documents, (rows, documents)), -1))
    distribution = np.concatenate(found)
    low, high = np.quantile(distribution, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), distribution


def _randomization_p_value(
    first: NDArray[np.float64], second: NDArray[np.float64], rate: Rate, resamples: int, draw: np.random.Generator
) -> float:
    """Compute the two-sided p-value of exchanging the systems' counts in each document at random."""
    from scipy.stats import permutation_test

    documents = len(first)
    if documents == 1:  # an exchange only changes the sign, and scipy needs two observations
        return 1.0
    counts = np.concatenate([first, second])  # [2 documents, 3]

    def absolute_difference(one: NDArray[np.int64], other: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        sums = (_sum_counts(counts, index, axis) for index in (one, other))
        of_one, of_other = (compute_rates(total, rate) for total in sums)
        return np.abs(of_one - of_other)

    # One-sided on the absolute difference: scipy's two-sided test doubles the smaller tail instead.
    result = permutation_test(
        (np.arange(documents), np.arange(documents, 2 * documents)),
        absolute_difference,
        permutation_type="samples",
        n_resamples=resamples,
        batch=_block_size(documents),
        vectorized=True,
        alternative="greater",
        rng=draw,
    )
    return float(result.pvalue)
