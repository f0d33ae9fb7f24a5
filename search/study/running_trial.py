"""A running trial as the progress display shows it: its curve, the rung that it has to pass, memory and time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clinie_core.config import TrialConfig
from search.trials.result import EpochResult

__all__ = ["CURVE_WIDTH", "RunningTrial", "draw_sparkline", "format_seconds"]

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#@"
CURVE_WIDTH = 16
"""Number of epochs whose scores a wide terminal shows."""


@dataclass
class RunningTrial:
    """A trial that is running.

    Args:
        config: Its configuration.
        scores: Value of the objective in each epoch, by 1-based epoch.
        metrics: Metrics of the latest epoch.
    """

    config: TrialConfig
    scores: dict[int, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    _seconds: dict[int, float] = field(default_factory=dict)

    def add(self, result: EpochResult, metric: str) -> None:
        """Add the results of an epoch.

        Args:
            result: The results.
            metric: Metric of the objective.
        """
        self.scores[result.epoch] = result.metrics[metric]
        self.metrics = result.metrics
        if "seconds" in result.metrics:
            self._seconds[result.epoch] = result.metrics["seconds"]

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return max(self.scores, default=0)

    def find_best(self, *, maximized: bool) -> float | None:
        """Return the best value of the objective; None before the first finite one."""
        finite = [score for score in self.scores.values() if math.isfinite(score)]
        return (max if maximized else min)(finite, default=None)

    @property
    def memory_mb(self) -> float | None:
        """Peak memory of one process in MiB; None before the first epoch."""
        return self.metrics.get("peak_memory_mb")

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch at the mean pace so far; None before the first epoch."""
        if not self._seconds:
            return None
        return sum(self._seconds.values()) / len(self._seconds) * max(0, self.config.epochs - self.epoch)


def draw_sparkline(values: Sequence[float], *, width: int = CURVE_WIDTH, ascii_only: bool = False) -> str:
    """Draw values as bars of one character each, from the lowest to the highest.

    Args:
        values: The values in order. Of more than ``width`` values, the last ones are drawn. A value that is not a
            finite number is a question mark.
        width: Largest number of characters.
        ascii_only: Draw with ASCII characters.
    """
    bars = ASCII_BARS if ascii_only else BARS
    shown = values[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)

    def draw(value: float) -> str:
        if not math.isfinite(value):
            return "?"
        position = (value - low) / (high - low) if high > low else 0.5
        return bars[min(len(bars) - 1, int(position * len(bars)))]

    return "".join(map(draw, shown))


def format_seconds(seconds: float | None) -> str:
    """Return a time such as ``45 s``, ``12 min`` or ``3.5 h``; ``-`` if it is unknown."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
