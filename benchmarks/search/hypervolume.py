"""Hypervolume that searches with several objectives keep although their scheduler stops trials.

Each pair of searches draws the same random trials: one search trains all of them to their last epoch, the other one
stops trials at the rungs for several objectives. The objectives are the dev score and the seconds of one epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from replay_tables import ReplayCorpus, load_replay_space
from simulated_search import CompleteTrial, ReplayedSearch, replay_search

__all__ = ["KeptHypervolume", "compare_with_no_stopping", "compute_hypervolume", "summarize_kept"]

TRIALS = 30
WORKERS = 4
OBJECTIVES = "objective=[{maximize: strict_f1}, {minimize: seconds}]"
RESAMPLES = 2_000


@dataclass(frozen=True)
class KeptHypervolume:
    """Result of one pair of searches.

    Args:
        share: Hypervolume of the search with stopping divided by that of the search without.
        compute: Compute of the search with stopping divided by that of the search without.
    """

    share: float
    compute: float


def compute_hypervolume(trials: Sequence[CompleteTrial], slowest: float) -> float:
    """Return the area that trials dominate, up to a score of 0 and a number of seconds.

    Args:
        trials: The trials.
        slowest: Seconds of the reference point; trials that take longer do not count.
    """
    area, best = 0.0, 0.0
    for trial in sorted(trials, key=lambda trial: trial.seconds):
        area += max(0.0, trial.true_score - best) * max(0.0, slowest - trial.seconds)
        best = max(best, trial.true_score)
    return area


def compare_with_no_stopping(corpus: ReplayCorpus, seed: int) -> KeptHypervolume:
    """Replay the same random trials with and without early stopping."""

    def replay(scheduler: str) -> ReplayedSearch:
        overrides = [
            "algorithm.sampler=random",
            f"algorithm.scheduler={scheduler}",
            f"algorithm.seed={seed}",
            OBJECTIVES,
        ]
        return replay_search(
            load_replay_space(overrides),
            lambda config, number: corpus.simulator.make_curve(config, 100_000 * (seed + 1) + number),
            workers=WORKERS,
            trials=TRIALS,
        )

    everything, stopped = replay("none"), replay("asha")
    slowest = max(trial.seconds for trial in everything.complete)
    total = compute_hypervolume(everything.complete, slowest)
    kept = compute_hypervolume(stopped.complete, slowest)
    return KeptHypervolume(kept / total if total else 1.0, stopped.compute / everything.compute)


def summarize_kept(results: Sequence[KeptHypervolume]) -> dict[str, float]:
    """Return the mean share of the hypervolume with its 95 % bootstrap interval, and the mean share of the compute."""
    shares = np.array([result.share for result in results])
    rows = np.random.default_rng(0).integers(0, len(shares), (RESAMPLES, len(shares)))
    low, high = np.percentile(shares[rows].mean(axis=1), [2.5, 97.5])
    compute = float(np.mean([result.compute for result in results]))
    return {
        "value": round(float(shares.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "compute": round(compute, 3),
    }
