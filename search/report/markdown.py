"""A study's report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from search.report.section import ReportSection

__all__ = ["render_markdown"]

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|"})


def render_markdown(title: str, facts: Sequence[str], sections: Sequence[ReportSection]) -> str:
    """Render a report as Markdown with the tables of GitHub's dialect.

    Args:
        title: Heading of the report.
        facts: Lines below the heading.
        sections: Sections of the report.
    """
    lines = [f"# {_escape(title)}", ""]
    for fact in facts:
        lines += [_escape(fact), ""]
    for section in sections:
        lines += [f"## {_escape(section.title)}", "", _escape(section.answer), ""]
        if section.rows:
            lines += [_format_row(section.columns), _format_row(["---"] * len(section.columns), escape=False)]
            lines += [*map(_format_row, section.rows), ""]
    return "\n".join(lines)


def _format_row(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escape(cell) if escape else cell for cell in cells) + " |"


def _escape(text: str) -> str:
    return text.translate(SPECIAL)
