"""Results of a section: figures, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Figure", "NotRun", "SectionResult", "Status"]

Status = Literal["measured", "simulated", "not run", "failed"]


class NotRun(Exception):
    """Reason why a section cannot run on this machine."""


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Args:
        name: Name of the figure, unique in its section.
        value: The value.
        unit: Its unit; empty for counts and states.
    """

    name: str
    value: float | str
    unit: str = ""

    def format_value(self) -> str:
        """Return the value with at most three decimals."""
        if isinstance(self.value, str):
            return self.value
        return f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class SectionResult:
    """Result of one section.

    Args:
        status: ``simulated`` if a CPU took the place of the GPU.
        seconds: Time of the section's process.
        figures: Its figures, in the order of the table.
        reason: Why it did not run, or its error.
        device: Name of the device.
    """

    status: Status
    seconds: float
    figures: tuple[Figure, ...] = ()
    reason: str = ""
    device: str = ""
