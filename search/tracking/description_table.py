"""Tables in the descriptions of MLflow, which are Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["make_description_table"]

GAP = "&emsp;"
"""Space after a cell: MLflow's pages show tables without a distance between the columns, and remove blanks."""


def make_description_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table for a description in MLflow.

    Args:
        columns: Column headings.
        rows: Cells; a vertical bar in them is escaped.
    """
    lines = [_make_line(columns), "|---" * len(columns) + "|", *map(_make_line, rows)]
    return "\n".join(lines)


def _make_line(cells: Sequence[object]) -> str:
    *first, last = (str(cell).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join([*(cell + GAP for cell in first), last]) + " |"
