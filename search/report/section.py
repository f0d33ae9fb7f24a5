"""A section of a report: a question, its answer and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.report.settings import UNNAMED
from search.report.text_table import Column, TextTable

__all__ = ["NO_EVIDENCE", "ReportSection", "format_count", "format_interval", "format_number"]

NO_EVIDENCE = "no evidence"


@dataclass(frozen=True)
class ReportSection:
    """One question of a report.

    Args:
        key: Identifier of the section, used to find its figures.
        title: The question.
        answer: One or two sentences that answer it from the data.
        columns: Column headings.
        rows: Formatted cells.
        optional: Indices of the columns that a narrow terminal leaves out, the last one first.
        settings: Names of the columns with settings of configurations, which a narrow terminal joins.
    """

    key: str
    title: str
    answer: str
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = field(default_factory=list)
    optional: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def table(self) -> TextTable:
        """The table for a terminal."""
        columns = [
            Column(title, title in self.settings, title not in UNNAMED, i in self.optional)
            for i, title in enumerate(self.columns)
        ]
        return TextTable(columns, self.rows)


def format_number(value: float, digits: int = 4) -> str:
    """Format a number with a fixed number of digits; ``-`` if it is not finite."""
    return "-" if not math.isfinite(value) else f"{value:.{digits}f}"


def format_count(value: float) -> str:
    """Format a count with thousands separators; ``-`` if it is not finite."""
    return "-" if not math.isfinite(value) else f"{value:,.0f}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Format the ends of an interval; ``-`` if there is none."""
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "-"
