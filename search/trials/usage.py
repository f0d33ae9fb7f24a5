"""Metrics of an epoch that state what it used; the sum over a trial's epochs is its use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["COST", "GPU_HOURS", "Usage"]

GPU_HOURS = "system.gpu_hours"
COST = "system.cost"


@dataclass(frozen=True)
class Usage:
    """Use of one or several trials.

    Args:
        gpu_hours: Hours of GPUs; None if the trials had none.
        cost: Money; None if their resource classes have no price.
    """

    gpu_hours: float | None = None
    cost: float | None = None

    @classmethod
    def of(cls, epochs: Iterable[Mapping[str, float]]) -> Usage:
        """Return the use of epochs from their metrics."""
        rows = list(epochs)

        def add(name: str) -> float | None:
            values = [row[name] for row in rows if name in row]
            return sum(values) if values else None

        return cls(add(GPU_HOURS), add(COST))

    def describe(self, currency: str | None) -> str:
        """Return the use for messages, such as ``1.25 GPU-hours, 5.00 EUR``; empty if nothing was measured.

        Args:
            currency: Currency of the cost.
        """
        parts = [] if self.gpu_hours is None else [f"{self.gpu_hours:.2f} GPU-hours"]
        parts += [] if self.cost is None else [f"{self.cost:.2f} {currency or ''}".strip()]
        return ", ".join(parts)

    def as_metrics(self) -> dict[str, float]:
        """Return the use as metrics of a run."""
        values = {"gpu_hours": self.gpu_hours, "cost": self.cost}
        return {name: value for name, value in values.items() if value is not None}
