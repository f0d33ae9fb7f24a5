"""Terminal tables of studies, scores and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clinie_core.data.document import Document
from clinie_core.scoring import Scores
from clinie_core.scoring.significance import bootstrap_interval
from search.config.description import describe_config
from search.ledger.records import TrialRecord
from search.report.sections import ReportSection

if TYPE_CHECKING:
    from search.study.transfer import TransferRow

__all__ = [
    "build_scores_table",
    "build_transfer_table",
    "build_trials_table",
    "mark_concepts",
    "print_sections",
]

WIDE = 140
"""Terminal width in columns from which a report's tables show all columns."""
SHORT_CELL = 14
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")


def build_trials_table(title: str, records: Sequence[TrialRecord], metric: str, *, maximized: bool) -> RenderableType:
    """Build a table of trials: finished ones first, then by score."""
    order = ("complete", "pruned", "running", "interrupted", "infeasible", "failed")
    sign = -1 if maximized else 1

    def key(record: TrialRecord) -> tuple[int, float, int]:
        return order.index(record.state), sign * record.metrics.get(metric, 0.0), record.number

    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 2))
    for column, justify in (("trial", "right"), ("state", "left"), (metric, "right"), ("epochs", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich's literal type
    table.add_column("configuration", overflow="fold")
    for record in sorted(records, key=key):
        metrics = record.metrics
        table.add_row(
            str(record.number),
            record.state,
            f"{metrics[metric]:.4f}" if metric in metrics else "-",
            str(len(record.epochs)),
            escape(describe_config(record.config) if record.config else "")
            + (f" [dim]({escape(record.reason)})[/dim]" if record.reason else ""),
        )
    return table


def print_sections(console: Console, facts: str, sections: Sequence[ReportSection]) -> None:
    """Print a report's sections."""
    console.print(f"[dim]{escape(facts)}[/dim]")
    for section in sections:
        console.print(f"\n[bold]{escape(section.title)}[/bold]")
        console.print(escape(section.answer))
        if not section.rows:
            continue
        everything = tuple(range(len(section.columns)))
        shown = section.narrow if section.narrow and console.width < WIDE else everything
        table = Table(header_style="bold", box=None, padding=(0, 1))
        for column in shown:
            short = max(len(row[column]) for row in section.rows) <= SHORT_CELL
            table.add_column(escape(section.columns[column]), overflow="fold", no_wrap=False, min_width=SHORT_CELL // 2)
            table.columns[-1].justify = "right" if short and column else "left"
        for row in section.rows:
            table.add_row(*(escape(row[column]) for column in shown))
        console.print(table)


def build_scores_table(title: str, scores: Scores) -> RenderableType:
    """Build a table of strict scores by type and of overall scores, with the interval of the strict F1."""
    low, high = bootstrap_interval(scores.documents("strict"))
    caption = f"strict F1: 95 % interval {low:.4f} to {high:.4f}, by bootstrap over documents"
    table = Table(
        title=title,
        caption=caption,
        caption_justify="left",
        title_justify="left",
        header_style="bold",
        box=None,
        padding=(0, 2),
    )
    table.add_column("type")
    for column in ("F1", "precision", "recall", "gold"):
        table.add_column(column, justify="right")
    rows = [
        *sorted(scores.by_type("strict").items()),
        ("all, strict", scores.micro("strict")),
        ("all, lenient", scores.micro("lenient")),
    ]
    for name, counts in rows:
        table.add_row(
            escape(name),
            f"{counts.f1:.4f}",
            f"{counts.precision:.4f}",
            f"{counts.recall:.4f}",
            f"{counts.tp + counts.fn:g}",
        )
    return table


def build_transfer_table(rows: Sequence[TransferRow]) -> RenderableType:
    """Build a table of strict F1 with its interval by held-out corpus and number of its documents."""
    shots = sorted({row.shots for row in rows})
    table = Table(header_style="bold", box=None, padding=(0, 2))
    table.add_column("held out")
    for count in shots:
        table.add_column(f"{count} documents" if count else "no documents", justify="right")
    for holdout in sorted({row.holdout for row in rows}):
        own = {row.shots: row for row in rows if row.holdout == holdout}
        cells = [own.get(count) for count in shots]
        table.add_row(escape(holdout), *(f"{c.mean:.4f} ({c.low:.3f}-{c.high:.3f})" if c else "-" for c in cells))
    return table


def mark_concepts(document: Document) -> Text:
    """Return a document's text with marked concepts and their types, followed by one line per relation."""
    types = sorted({concept.type for concept in document.concepts})
    colour = {type_: COLOURS[i % len(COLOURS)] for i, type_ in enumerate(types)}
    text, at = Text(), 0
    for concept in sorted(document.concepts, key=lambda c: (c.start, c.end)):
        if concept.start < at:  # overlapping concepts are shown by --json only
            continue
        text.append(document.text[at : concept.start])
        text.append(f"[{document.text[concept.start : concept.end]}", style=f"bold {colour[concept.type]}")
        text.append(f" {concept.type}]", style=colour[concept.type])
        at = concept.end
    text.append(document.text[at:])
    by_id = {concept.id: concept for concept in document.concepts}
    for relation in document.relations:
        head, tail = by_id[relation.head], by_id[relation.tail]
        text.append(f"\n{document.mention(head)} ", style=f"bold {colour[head.type]}")
        text.append(f"- {relation.type} -> ")
        text.append(document.mention(tail), style=f"bold {colour[tail.type]}")
    return text
