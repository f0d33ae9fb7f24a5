"""Settings of the schedulers: objectives, limits, and the time before a trial may be stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search.config.objectives import Limit, Objective
from search.config.space_file import Algorithm, SpaceFile

__all__ = ["FEWEST_STEPS", "StoppingSettings", "choose_grace_epochs", "is_too_early"]

STEPS = "optimizer_steps"
"""Metric of an epoch: number of optimizer steps since the start of the training."""

FEWEST_STEPS = 50
"""Number of optimizer steps before a trial with a score of 0 may be stopped.

In the recorded tables of ``benchmarks/search``, 17 trials with low-rank adapters reach at least half of the best score
of their table. Three of four have left a score of 0 after 24 steps, and nine of ten after 48. With a grace period of
one epoch, this rule lowers the regret of ASHA on these tables from 6.5 to 0.2 points
(``benchmarks/search/zero_scores.py``).
"""

GRACE_EPOCHS = ((50, 3), (200, 2))
"""Numbers of dev documents below which a trial may be stopped after this many epochs; after one epoch otherwise.

With 48 documents, the rank correlation with the final score is 0.33 after one epoch, 0.73 after two and 0.89 after
three. The standard error of a score falls with the square root of the number of documents.
"""


@dataclass(frozen=True)
class StoppingSettings:
    """Settings of a scheduler.

    Args:
        algorithm: Name of the scheduler, reduction factor and number of trials to compare with.
        objectives: Objectives of the study, the main one first.
        epochs: Maximum number of epochs of one trial.
        grace_epochs: Number of epochs before a trial may be stopped.
        limits: Limits on metrics that a configuration has to satisfy.
    """

    algorithm: Algorithm
    objectives: tuple[Objective, ...]
    epochs: int
    grace_epochs: int = 1
    limits: tuple[Limit, ...] = ()

    @classmethod
    def from_space_file(cls, file: SpaceFile, dev_documents: int | None = None) -> StoppingSettings:
        """Return the settings of a space.

        Args:
            file: The space file.
            dev_documents: Number of documents of the dev split; None if it is unknown.
        """
        grace = file.algorithm.grace_epochs or choose_grace_epochs(file.budget.epochs, dev_documents)
        return cls(file.algorithm, file.objective, file.budget.epochs, grace, file.metric_limits)


def is_too_early(objective: Objective, metrics: Mapping[str, float]) -> bool:
    """Return whether a trial has a score of 0 that further optimizer steps will probably raise.

    Args:
        objective: The main objective.
        metrics: Metrics of the latest epoch; without ``optimizer_steps`` it is not too early.
    """
    is_zero = objective.direction == "maximize" and metrics.get(objective.metric, math.nan) <= 0
    return is_zero and metrics.get(STEPS, math.inf) < FEWEST_STEPS


def choose_grace_epochs(epochs: int, dev_documents: int | None) -> int:
    """Return the number of epochs before a trial may be stopped: more for a smaller dev split.

    Args:
        epochs: Maximum number of epochs of one trial; at most half of them are chosen.
        dev_documents: Number of documents of the dev split; None if it is unknown.
    """
    if dev_documents is None:
        return 1
    chosen = next((number for below, number in GRACE_EPOCHS if dev_documents < below), 1)
    return max(1, min(chosen, epochs // 2))
