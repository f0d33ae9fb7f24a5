"""What a study optimizes: one metric, or several with a direction each."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from clinie_core.config import FrozenModel

__all__ = ["METRICS", "SYSTEM", "Objective"]

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
"""What a trial can be judged by after every epoch, and which way is better; the parts' scores are of ``joint``."""


SYSTEM = "system."
"""How the names of metrics of the machine begin, which say nothing of the model. Tune makes nested results of
names with a slash, so MLflow's ``system/`` is written by the tracker alone."""


class Objective(FrozenModel):
    """``{maximize: METRIC}`` or ``{minimize: METRIC}``."""

    maximize: str | None = None
    minimize: str | None = None

    @model_validator(mode="after")
    def _one_known_metric(self) -> Self:
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("an objective is one of maximize: METRIC and minimize: METRIC")
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}; allowed: {', '.join(METRICS)}")
        if METRICS[self.metric] != self.direction:
            raise ValueError(f"{self.metric} is to {METRICS[self.metric]}, not to {self.direction}")
        return self

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.maximize or self.minimize or ""

    @property
    def direction(self) -> Direction:
        """Which way is better."""
        return "maximize" if self.maximize else "minimize"

    @property
    def is_score(self) -> bool:
        """Whether the metric is a dev score, by which a trial's best epoch can be chosen."""
        return "strict_" in self.metric or "lenient_" in self.metric
