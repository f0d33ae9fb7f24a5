"""Objectives of a study: metrics, each with a direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from clinie_core.config import FrozenModel

__all__ = ["METRICS", "SYSTEM", "Limit", "Objective", "describe_violations", "improves_with_training"]

Direction = Literal["maximize", "minimize"]

METRICS: dict[str, Direction] = {
    **{f"{mode}_{rate}": "maximize" for mode in ("strict", "lenient") for rate in ("f1", "precision", "recall")},
    **{f"{part}_strict_f1": "maximize" for part in ("concept", "relation", "gold_relation")},
    "trainable_parameters": "minimize",
    "peak_memory_mb": "minimize",
    "seconds": "minimize",
    "tokens_per_second": "maximize",
    "documents_per_second": "maximize",
    "train_loss": "minimize",
}
"""Direction of every metric that can be an objective; the task ``joint`` alone has the scores of parts."""


SYSTEM = "system."
"""Prefix of the metrics of the machine. MLflow's own prefix ``system/`` is written only by the tracker, because Ray
Tune turns names with a slash into nested results."""


class Objective(FrozenModel):
    """An objective, written as ``{maximize: METRIC}`` or ``{minimize: METRIC}``.

    Args:
        maximize: Metric to maximize; exactly one of the two keys is set.
        minimize: Metric to minimize.
    """

    maximize: str | None = None
    minimize: str | None = None

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("an objective is either maximize: METRIC or minimize: METRIC")
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}; allowed: {', '.join(METRICS)}")
        if METRICS[self.metric] != self.direction:
            raise ValueError(f"{self.metric} can only be used with {METRICS[self.metric]}, not with {self.direction}")
        return self

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.maximize or self.minimize or ""

    @property
    def direction(self) -> Direction:
        """Direction in which the metric improves."""
        return "maximize" if self.maximize else "minimize"

    @property
    def can_select_epoch(self) -> bool:
        """True if the metric is a dev score or the training loss, which can select a trial's best epoch."""
        return improves_with_training(self.metric)


@dataclass(frozen=True)
class Limit:
    """Limit on a metric: the lowest allowed value of a metric to maximize, the highest of one to minimize."""

    metric: str
    value: float

    @property
    def improves_with_training(self) -> bool:
        """True if later epochs can satisfy the limit although an earlier one does not."""
        return improves_with_training(self.metric)

    def compute_violation(self, metrics: Mapping[str, float]) -> float:
        """Return the violation of the limit relative to its value; at most 0 if metrics satisfy it.

        A metric that is missing or not a finite number violates the limit.
        """
        found = metrics.get(self.metric, math.nan)
        if not math.isfinite(found):
            return 1.0
        excess = found - self.value if METRICS[self.metric] == "minimize" else self.value - found
        return excess / abs(self.value) if self.value else excess

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if METRICS[self.metric] == 'minimize' else '>='} {self.value:g}"


def describe_violations(limits: Iterable[Limit], metrics: Mapping[str, float]) -> str:
    """Return the limits that metrics violate, with the values that were found; empty if they satisfy all limits."""
    violated = [limit for limit in limits if limit.compute_violation(metrics) > 0]
    return ", ".join(
        f"{limit.metric} is {metrics.get(limit.metric, math.nan):.6g} (limit: {limit})" for limit in violated
    )


def improves_with_training(metric: str) -> bool:
    """Return whether a metric is a dev score or the training loss, which differ between the epochs of a trial."""
    return "strict_" in metric or "lenient_" in metric or metric == "train_loss"
