"""Comparisons between trials and between groups of trials, with their uncertainty.

There are two sources of uncertainty. The *documents* of the dev split are a sample, so documents are
resampled. The *trials* of a search are a sample too, so trials are resampled within their group, and a
permutation test exchanges the group labels. A search selects the best of many trials on dev, so the dev score
of that trial is optimistic. The correction repeats the selection in each bootstrap sample of the documents and
scores the selected trial on the documents outside the sample.

Sources: Tsamardinos et al. 2018, Machine Learning 107 (bootstrap correction of the best of many
configurations); Dodge et al. 2019, EMNLP (expected best of m trials); Shao and Tu 1995, *The Jackknife and
Bootstrap* (the scale of subsampled deviations); Phipson and Smyth 2010 (permutation p-values are never 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.scoring.significance import SIGNIFICANCE_LEVEL, compute_rates, draw_document_weights, is_significant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CorrectedBest",
    "GroupComparison",
    "Trend",
    "compare_groups",
    "compute_expected_best",
    "compute_trend",
    "correct_best_score",
]

TRIES = 5
"""Number of trials in an expected best, unless the smaller group has fewer trials."""
PERMUTATIONS = 4_000
RESAMPLES = 1_000


@dataclass(frozen=True)
class GroupComparison:
    """Comparison of two groups of trials.

    Args:
        difference: Expected best score of ``tries`` trials of the first group minus that of the second group.
        low: Lower end of the 95 % interval of the difference, over documents and trials.
        high: Upper end of the interval.
        p: Two-sided p-value of a permutation test that exchanges the trials' groups.
        tries: Number of trials in the expected best.
        trials: Number of trials of each group.
    """

    difference: float
    low: float
    high: float
    p: float
    tries: int
    trials: tuple[int, int]

    @property
    def significant(self) -> bool:
        """True if the difference between the groups is significant."""
        return is_significant(self.p, self.low, self.high)


@dataclass(frozen=True)
class CorrectedBest:
    """Score of the best of many trials, corrected for the selection.

    Args:
        best: Index of the trial with the best score on all documents.
        score: Its score on all documents, which is optimistic.
        corrected: Expected score of the selected trial on documents that were not used for the selection.
        low: Lower end of the 95 % interval of ``corrected``.
        high: Upper end of the interval.
    """

    best: int
    score: float
    corrected: float
    low: float
    high: float


@dataclass(frozen=True)
class Trend:
    """Rank correlation between a score and a parameter.

    Args:
        correlation: Spearman's rank correlation.
        p: Two-sided p-value of a permutation test.
        trials: Number of trials.
    """

    correlation: float
    p: float
    trials: int

    @property
    def significant(self) -> bool:
        """True if the correlation is significant."""
        return self.p <= SIGNIFICANCE_LEVEL


def _best_weights(trials: int, tries: int) -> NDArray[np.float64]:
    """Return each trial's weight, worst trial first, in the expected best of ``tries`` drawn without replacement."""
    rank = np.arange(1, trials + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        logs = _log_choose(rank - 1, tries - 1) - _log_choose(np.float64(trials), tries)
    weights: NDArray[np.float64] = np.where(rank >= tries, np.exp(logs), 0.0)
    return weights


def _log_choose(n: NDArray[np.float64] | np.float64, k: int) -> NDArray[np.float64]:
    from scipy.special import gammaln

    chosen: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, -0.5) + 1)
    return chosen


def compute_expected_best(scores: NDArray[np.float64], tries: int) -> NDArray[np.float64]:
    """Return the mean of the best score over all subsets of ``tries`` trials.

    Args:
        scores: Scores of the trials, ``[..., trials]``.
        tries: Number of trials in a subset, from 1 to the number of trials.

    Returns:
        Expected best scores, ``[...]``.
    """
    best: NDArray[np.float64] = np.sort(scores, axis=-1) @ _best_weights(scores.shape[-1], tries)
    return best


def compare_groups(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 13) -> GroupComparison:
    """Compare two groups of trials that were scored on the same documents.

    Args:
        first: Counts of the first group, ``[trials, documents, 3]``.
        second: Counts of the second group, ``[trials, documents, 3]``.
        seed: Seed of the resampling; the result depends on nothing else that is random.

    Raises:
        ValueError: If a group is empty or the numbers of documents differ.
    """
    if not len(first) or not len(second) or first.shape[1] != second.shape[1]:
        raise ValueError(f"groups of shapes {first.shape} and {second.shape}; both need trials on the same documents")
    draw = np.random.default_rng(seed)
    sizes = (len(first), len(second))
    tries = min(TRIES, *sizes)
    scores = np.concatenate(
        [compute_rates(first.sum(axis=1), "f1"), compute_rates(second.sum(axis=1), "f1")]
    )  # [trials]

    def compute_difference(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        best_of_first = compute_expected_best(scores[..., : sizes[0]], tries)
        best_of_second = compute_expected_best(scores[..., sizes[0] :], tries)
        difference: NDArray[np.float64] = best_of_first - best_of_second
        return difference

    p = _permutation_p_value(scores, compute_difference, draw)
    both = np.concatenate([first, second])  # [trials, documents, 3]
    resampled = []
    for weights in draw_document_weights(both.shape[1], RESAMPLES, draw):
        sums = np.einsum("bd,tdc->btc", weights, both, optimize=True)  # [block, trials, 3]
        by_trial = compute_rates(sums, "f1")  # [block, trials]
        picks = [draw.integers(0, size, size=(len(weights), size)) for size in sizes]
        picks[1] += sizes[0]
        resampled.append(compute_difference(np.take_along_axis(by_trial, np.concatenate(picks, axis=1), axis=1)))
    low, high = np.quantile(np.concatenate(resampled), [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    return GroupComparison(float(compute_difference(scores)), float(low), float(high), p, tries, sizes)


def correct_best_score(counts: NDArray[np.float64], *, seed: int = 13) -> CorrectedBest:
    """Estimate the score of the best trial on documents that were not used to select it.

    Args:
        counts: Counts of the trials, ``[trials, documents, 3]``.
        seed: Seed of the resampling; the result depends on nothing else that is random.

    Raises:
        ValueError: If there is no trial or there are fewer than two documents.
    """
    trials, documents = counts.shape[:2]
    if not trials or documents < 2:
        raise ValueError(
            f"found {trials} trials and {documents} documents; at least 1 trial and 2 documents are needed"
        )
    draw = np.random.default_rng(seed)
    scores = compute_rates(counts.sum(axis=1), "f1")
    outside, shares = [], []
    for weights in draw_document_weights(documents, RESAMPLES, draw):
        chosen = compute_rates(np.einsum("bd,tdc->btc", weights, counts, optimize=True), "f1").argmax(axis=1)  # [block]
        left_out = (weights == 0).astype(np.float64)
        kept = left_out.sum(axis=1) > 0
        sums = np.einsum("bd,bdc->bc", left_out, counts[chosen], optimize=True)  # [block, 3]
        outside.append(compute_rates(sums, "f1")[kept])
        shares.append(left_out.mean(axis=1)[kept])
    found = np.concatenate(outside)
    share = float(np.concatenate(shares).mean())
    # The scores vary more on a part of the documents than on all of them; the deviations are scaled accordingly.
    spread = (found - found.mean()) * np.sqrt(share / max(1e-9, 1 - share))
    low, high = found.mean() + np.quantile(spread, [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    best = int(scores.argmax())
    return CorrectedBest(best, float(scores[best]), float(found.mean()), float(low), float(high))


def compute_trend(parameter: Sequence[float], scores: Sequence[float], *, seed: int = 13) -> Trend | None:
    """Compute the rank correlation between a parameter and a score.

    Args:
        parameter: Value of the parameter in each trial.
        scores: Score of each trial.
        seed: Seed of the permutation test.

    Returns:
        The trend; None for fewer than four trials, or if the parameter or the score is constant.
    """
    if len(parameter) < 4 or len(set(parameter)) < 2 or len(set(scores)) < 2:
        return None
    from scipy import stats  # takes a second to import

    x, y = stats.rankdata(parameter), stats.rankdata(scores)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))

    def correlate(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        correlation: NDArray[np.float64] = ranks @ x / norm
        return correlation

    p = _permutation_p_value(y, correlate, np.random.default_rng(seed))
    return Trend(float(correlate(y)), p, len(parameter))


def _permutation_p_value(
    values: NDArray[np.float64],
    compute_statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draw: np.random.Generator,
) -> float:
    """Return the two-sided p-value of a statistic under permutations of the values; exact for few values.

    Args:
        values: ``[values]``.
        compute_statistic: Maps ``[..., values]`` to ``[...]``.
        draw: Source of random permutations.
    """

    def compute_size(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.abs(compute_statistic(np.moveaxis(values, axis, -1)))

    from scipy import stats

    # One-sided on the absolute value: scipy's two-sided test doubles the smaller tail instead.
    result = stats.permutation_test(
        (values,),
        compute_size,
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        alternative="greater",
        rng=draw,
    )
    return float(result.pvalue)
