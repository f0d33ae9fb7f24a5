"""The section of a report with the commands that changed the search while it was running."""

from __future__ import annotations

from collections.abc import Sequence

from search.control.commands import CommandEntry
from search.report.section import ReportSection

__all__ = ["build_commands_section"]


def build_commands_section(entries: Sequence[CommandEntry]) -> list[ReportSection]:
    """Return the section, or an empty list without commands.

    Args:
        entries: All commands of the study, with the decisions on them.
    """
    if not entries:
        return []
    accepted = sum(entry.decision is not None and entry.decision.is_accepted for entry in entries)
    rows = [(entry.time, str(entry.command), str(entry.decision or "not read yet")) for entry in entries]
    answer = f"{accepted} of {len(entries)} commands were accepted. A stopped trial counts as pruned."
    title = "Which commands changed the search while it was running?"
    return [ReportSection("commands", title, answer, ("time (UTC)", "command", "decision"), rows)]
