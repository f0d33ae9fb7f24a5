"""Tables of plain text that adapt to the width of a terminal without breaking words.

Columns are as narrow as their longest words if necessary. A table that is still too wide first joins its settings into
one column, then leaves out optional columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from rich.cells import cell_len

__all__ = ["Column", "TextTable"]

GAP = 2
CONFIGURATION = "configuration"
NUMBER = re.compile(r"[-+]?[\d,.]+(e[-+]\d+)?( %| MiB)?$|-?$")
"""Cell of a column that is aligned to the right; a dash or nothing means an unknown value."""


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Args:
        title: Heading.
        is_setting: Whether the column holds a setting of configurations, so that it may be joined with others.
        is_named: Whether the joined column names the setting, ``rank=8``; otherwise it shows the value only.
        is_optional: Whether the column is left out if the table is too wide; the last one first.
    """

    title: str
    is_setting: bool = False
    is_named: bool = True
    is_optional: bool = False


@dataclass(frozen=True)
class TextTable:
    """A table for the terminal.

    Args:
        columns: The columns.
        rows: Cells of each row, as plain text.
        gap: Number of blanks between two columns.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    gap: int = GAP

    def fit(self, width: int | None) -> FittedTable:
        """Choose the width of each column.

        Args:
            width: Largest length of a line; None for no limit.
        """
        titles, cells = [column.title for column in self.columns], list(zip(*self.rows, strict=True))
        cells = cells or [()] * len(titles)
        natural = [max([_longest_word(t), *map(_measure, own)]) for t, own in zip(titles, cells, strict=True)]
        if width is None:
            return FittedTable(self, [max(n, _measure(t)) for n, t in zip(natural, titles, strict=True)])
        if self._total(natural) <= width:
            return FittedTable(self, self._widen_titles(natural, width))
        if sum(column.is_setting for column in self.columns) > 1:
            return self._join_settings().fit(width)
        least = [max(map(_longest_word, (t, *own))) for t, own in zip(titles, cells, strict=True)]
        optional = [i for i, column in enumerate(self.columns) if column.is_optional]
        if self._total(least) <= width or not optional:
            return FittedTable(self, self._shrink(natural, least, width))
        left = self._leave_out(optional[-1]).fit(width)
        return replace(left, hidden=(titles[optional[-1]], *left.hidden))

    def _total(self, widths: Sequence[int]) -> int:
        return sum(widths) + self.gap * (len(widths) - 1)

    def _widen_titles(self, widths: Sequence[int], width: int) -> list[int]:
        """Widen columns to the length of their titles, from the left, as far as there is space."""
        found, free = list(widths), width - self._total(widths)
        for i, column in enumerate(self.columns):
            more = max(0, _measure(column.title) - found[i])
            if more <= free:
                found[i], free = found[i] + more, free - more
        return found

    def _shrink(self, natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
        """Return widths that fit: the widest columns become narrower first, down to their longest word."""
        widths, excess = list(natural), self._total(natural) - width
        while excess > 0 and (able := [i for i in range(len(widths)) if widths[i] > least[i]]):
            widest = max(able, key=lambda i: widths[i])
            widths[widest] -= 1
            excess -= 1
        return widths

    def _join_settings(self) -> TextTable:
        own = [i for i, column in enumerate(self.columns) if column.is_setting]
        joined = Column(CONFIGURATION)

        def join(row: Sequence[str]) -> str:
            cells = ((self.columns[i], row[i]) for i in own if row[i] not in ("", "-"))
            return " ".join(f"{c.title}={cell}" if c.is_named else cell for c, cell in cells)

        def keep(cells: Sequence[str], new: str) -> list[str]:
            return [new if i == own[0] else cell for i, cell in enumerate(cells) if i == own[0] or i not in own]

        columns = [joined if i == own[0] else c for i, c in enumerate(self.columns) if i == own[0] or i not in own]
        return TextTable(columns, [keep(row, join(row)) for row in self.rows], self.gap)

    def _leave_out(self, index: int) -> TextTable:
        columns = [c for i, c in enumerate(self.columns) if i != index]
        rows = [[cell for i, cell in enumerate(row) if i != index] for row in self.rows]
        return TextTable(columns, rows, self.gap)


@dataclass(frozen=True)
class FittedTable:
    """A table with the width of each column.

    Args:
        table: The table.
        widths: Width of each column.
        hidden: Titles of the columns that were left out.
    """

    table: TextTable
    widths: Sequence[int]
    hidden: tuple[str, ...] = ()

    def render_head(self) -> list[str]:
        """Return the lines of the headings."""
        return self._render([column.title for column in self.table.columns])

    def render_rows(self) -> list[str]:
        """Return the lines of all rows."""
        return [line for row in self.table.rows for line in self._render(row)]

    def _render(self, row: Sequence[str]) -> list[str]:
        cells = [_wrap(cell, width) for cell, width in zip(row, self.widths, strict=True)]
        lines = []
        for n in range(max(map(len, cells))):
            parts = []
            for i, (cell, width) in enumerate(zip(cells, self.widths, strict=True)):
                content = cell[n] if n < len(cell) else ""
                blanks = " " * (width - _measure(content))
                parts.append(blanks + content if self._is_right[i] else content + blanks)
            lines.append((" " * self.table.gap).join(parts).rstrip())
        return lines

    @cached_property
    def _is_right(self) -> list[bool]:
        """Alignment of each column to the right, where all cells are numbers."""
        rows = self.table.rows
        return [all(NUMBER.match(row[i]) for row in rows) for i in range(len(self.table.columns))]


def _measure(text: str) -> int:
    """Return the number of terminal cells of a text."""
    return len(text) if text.isascii() else cell_len(text)


def _longest_word(text: str) -> int:
    return max(map(_measure, text.split()), default=0)


def _wrap(text: str, width: int) -> list[str]:
    """Divide a text into lines between words; a longer word has a line of its own."""
    if _measure(text) <= width:
        return [text]
    lines: list[str] = []
    for word in text.split():
        if lines and _measure(lines[-1]) + 1 + _measure(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
