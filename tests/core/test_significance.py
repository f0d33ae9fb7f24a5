"""Intervals of scores, compared with an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from clinie_core.scoring.significance import bootstrap_interval, compute_rates


@pytest.mark.parametrize("documents", [2, 17])
def test_the_interval_equals_that_of_scipy(documents: int) -> None:
    counts = np.random.default_rng(3).integers(0, 9, (documents, 3)).astype(np.float64)

    def compute_f1(index: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        return compute_rates(counts[index].sum(axis=axis - 1), "f1")

    expected = stats.bootstrap(
        (np.arange(documents),),
        compute_f1,
        n_resamples=500,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(13),
    ).confidence_interval
    assert bootstrap_interval(counts, resamples=500) == pytest.approx((float(expected.low), float(expected.high)))
