"""Comparisons between trials and between groups of trials, with their uncertainty.

Two kinds of doubt are kept apart. Which *documents* the dev split happens to hold: documents are
resampled. Which *trials* a search happened to run: trials are resampled within their group, and group
labels are exchanged. A search picks the best of many on dev, so its score there is optimistic; how much
so is estimated by picking again in each resample and scoring on the documents that it left out.

Sources: Tsamardinos et al. 2018, Machine Learning 107 (bootstrap correction of the best of many
configurations); Dodge et al. 2019, EMNLP (expected best of m trials); Shao and Tu 1995, *The Jackknife and
Bootstrap* (the scale of subsampled deviations); Phipson and Smyth 2010 (permutation p-values are never 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from scipy.special import gammaln

from clinie_core.scoring.significance import SIGNIFICANCE_LEVEL, compute_rates, draw_document_weights, is_significant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CorrectedBest",
    "GroupComparison",
    "Trend",
    "compare_groups",
    "corrected_best",
    "expected_best",
    "trend",
]

TRIES = 5
"""Groups are compared by the best of so many trials, or of as many as the smaller one has."""
PERMUTATIONS = 4_000
RESAMPLES = 1_000


@dataclass(frozen=True)
class GroupComparison:
    """Two groups of trials.

    Args:
        difference: Expected best of ``tries`` trials of the first group less that of the second.
        low: Lower end of the 95 % interval, over documents and trials.
        high: Its upper end.
        p: Two-sided, by exchanging the trials' groups.
        tries: Of how many trials the best is taken.
        trials: How many trials each group has.
    """

    difference: float
    low: float
    high: float
    p: float
    tries: int
    trials: tuple[int, int]

    @property
    def significant(self) -> bool:
        """Whether the data tell the groups apart."""
        return is_significant(self.p, self.low, self.high)


@dataclass(frozen=True)
class CorrectedBest:
    """The best of many trials, as it is to be expected on other documents.

    Args:
        best: Index of the best on all documents.
        score: Its score there, which is optimistic.
        corrected: What the best is expected to score on documents that did not choose it.
        low: Lower end of the 95 % interval of ``corrected``.
        high: Its upper end.
    """

    best: int
    score: float
    corrected: float
    low: float
    high: float

    @property
    def optimism(self) -> float:
        """By how much the score that chose flatters."""
        return self.score - self.corrected


@dataclass(frozen=True)
class Trend:
    """Whether a score rises or falls with a parameter: Spearman's rank correlation and its permutation p-value."""

    correlation: float
    p: float
    trials: int

    @property
    def significant(self) -> bool:
        """Whether the data show a trend."""
        return self.p <= SIGNIFICANCE_LEVEL


def _best_weights(trials: int, tries: int) -> NDArray[np.float64]:
    """The weight of each trial, the worst first, in the expected best of ``tries`` drawn without replacement."""
    rank = np.arange(1, trials + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        logs = _log_choose(rank - 1, tries - 1) - _log_choose(np.float64(trials), tries)
    weights: NDArray[np.float64] = np.where(rank >= tries, np.exp(logs), 0.0)
    return weights


def _log_choose(n: NDArray[np.float64] | np.float64, k: int) -> NDArray[np.float64]:
    chosen: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, -0.5) + 1)
    return chosen


def expected_best(scores: NDArray[np.float64], tries: int) -> NDArray[np.float64]:
    """The mean, over all choices of ``tries`` of the trials, of the best score among them.

    Args:
        scores: ``[..., trials]``.
        tries: At least 1, at most the number of trials.

    Returns:
        ``[...]``.
    """
    best: NDArray[np.float64] = np.sort(scores, axis=-1) @ _best_weights(scores.shape[-1], tries)
    return best


def compare_groups(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 13) -> GroupComparison:
    """Compare two groups of trials that predicted the same documents.

    Args:
        first: Counts of the first group, ``[trials, documents, 3]``.
        second: Counts of the second group, ``[trials, documents, 3]``.
        seed: Equal seeds give equal results.

    Raises:
        ValueError: If a group is empty or the documents are not as many.
    """
    if not len(first) or not len(second) or first.shape[1] != second.shape[1]:
        raise ValueError("both groups need trials on the same documents")
    draw = np.random.default_rng(seed)
    sizes = (len(first), len(second))
    tries = min(TRIES, *sizes)
    scores = np.concatenate(
        [compute_rates(first.sum(axis=1), "f1"), compute_rates(second.sum(axis=1), "f1")]
    )  # [trials]

    def difference(of: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = expected_best(of[..., : sizes[0]], tries) - expected_best(
            of[..., sizes[0] :], tries
        )
        return result

    observed = float(difference(scores))
    exchanged = difference(draw.permuted(np.tile(scores, (PERMUTATIONS, 1)), axis=1))
    as_large = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    both = np.concatenate([first, second])  # [trials, documents, 3]
    resampled = []
    for weights in draw_document_weights(both.shape[1], RESAMPLES, draw):
        sums = np.einsum("bd,tdc->btc", weights, both, optimize=True)  # [block, trials, 3]
        by_trial = compute_rates(sums, "f1")  # [block, trials]
        picks = [draw.integers(0, size, size=(len(weights), size)) for size in sizes]
        picks[1] += sizes[0]
        resampled.append(difference(np.take_along_axis(by_trial, np.concatenate(picks, axis=1), axis=1)))
    low, high = np.quantile(np.concatenate(resampled), [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    p = (as_large + 1) / (PERMUTATIONS + 1)
    return GroupComparison(observed, float(low), float(high), p, tries, sizes)


def corrected_best(counts: NDArray[np.float64], *, seed: int = 13) -> CorrectedBest:
    """What the best of a group of trials is worth on documents that did not choose it.

    Args:
        counts: ``[trials, documents, 3]``.
        seed: Equal seeds give equal results.

    Raises:
        ValueError: Without trials or with fewer than two documents.
    """
    trials, documents = counts.shape[:2]
    if not trials or documents < 2:
        raise ValueError("it takes a trial and two documents")
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
    # A share of the documents scatters more than all of them would.
    spread = (found - found.mean()) * np.sqrt(share / max(1e-9, 1 - share))
    low, high = found.mean() + np.quantile(spread, [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    best = int(scores.argmax())
    return CorrectedBest(best, float(scores[best]), float(found.mean()), float(low), float(high))


def trend(parameter: Sequence[float], scores: Sequence[float], *, seed: int = 13) -> Trend | None:
    """Whether a score follows a parameter.

    Returns:
        None with fewer than four trials or where either never varies.
    """
    if len(parameter) < 4 or len(set(parameter)) < 2 or len(set(scores)) < 2:
        return None
    x, y = stats.rankdata(parameter), stats.rankdata(scores)
    draw = np.random.default_rng(seed)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    observed = float(x @ y) / norm
    exchanged = draw.permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1) @ x / norm
    as_large = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    return Trend(observed, (as_large + 1) / (PERMUTATIONS + 1), len(parameter))
