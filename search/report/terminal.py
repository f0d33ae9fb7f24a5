"""Terminal tables of studies, scores and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from search.ledger.driver import shorten_names
from search.ledger.ranking import rank_trials
from search.ledger.records import sum_usage
from search.report.settings import separate_settings
from search.report.text_table import Column, TextTable

if TYPE_CHECKING:
    from clinie_core.scoring import Scores
    from search.ledger.records import TrialRecord
    from search.report.section import ReportSection
    from search.study.transfer import TransferRow

__all__ = [
    "build_scores_table",
    "build_transfer_table",
    "print_sections",
    "print_table",
    "print_trials",
]


def print_table(console: Console, table: TextTable, *, wide: bool = False) -> None:
    """Print a table in the width of the terminal.

    Args:
        console: The console to print to.
        table: The table.
        wide: Show all columns in full, in lines of any length.
    """
    fitted = table.fit(None if wide else console.width)
    text = Text("\n".join(fitted.render_head()), style="bold")
    text.append("\n" + "\n".join(fitted.render_rows()), style="not bold")
    console.print(text, soft_wrap=True, crop=False)
    if fitted.hidden:
        _print_dim(console, f"not shown: {', '.join(fitted.hidden)}; --wide shows all columns")


def print_trials(
    console: Console, title: str, records: Sequence[TrialRecord], metric: str, *, maximized: bool, wide: bool = False
) -> None:
    """Print a table of trials: finished ones first, then by number of seeds and mean score.

    Args:
        console: The console to print to.
        title: Line above the table.
        records: The trials.
        metric: Name of the metric of the first objective.
        maximized: Whether a higher value of the metric is better.
        wide: Show all columns in full, in lines of any length.
    """
    order = ("complete", "pruned", "running", "paused", "interrupted", "infeasible", "failed")
    sign = -1 if maximized else 1
    scores = {record.number: record.metrics.get(metric) for record in records}
    seeds = {trial.record.number: trial for trial in rank_trials(records, metric, maximized=maximized)}

    def key(record: TrialRecord) -> tuple[int, int, float, int]:
        own = seeds.get(record.number)
        score = own.mean if own is not None else scores[record.number] or 0.0
        return order.index(record.state), -len(own.scores) if own else -1, sign * score, record.number

    ranked = sorted(records, key=key)
    settings = separate_settings([record.config for record in ranked])
    columns = [Column("trial"), Column("state"), Column(metric), Column("epochs"), *settings.columns]
    used = sum_usage(ranked)
    columns += [Column("GPU-hours")] if used.gpu_hours is not None else []
    columns += [Column("cost")] if used.cost is not None else []
    drivers = shorten_names(record.driver for record in ranked)
    columns += [Column("driver")] if len(drivers) > 1 else []
    classes = any(record.resource_class for record in ranked)
    columns += [Column("class")] if classes else []
    reasons = any(_describe_reason(record) for record in ranked)
    columns += [Column("reason")] if reasons else []
    rows = []
    for record, values in zip(ranked, settings.rows, strict=True):
        score = scores[record.number]
        shown = "-" if score is None else str(seeds.get(record.number, f"{score:.4f}"))
        row = [str(record.number), record.state, shown, str(len(record.epochs))]
        own = record.usage
        use = [f"{own.gpu_hours or 0:.2f}"] if used.gpu_hours is not None else []
        use += [f"{own.cost or 0:.2f}"] if used.cost is not None else []
        use += [drivers.get(record.driver or "", "-")] if len(drivers) > 1 else []
        use += [record.resource_class or "-"] if classes else []
        rows.append([*row, *values, *use, *([_describe_reason(record)] if reasons else [])])
    console.print(title, style="italic", soft_wrap=True, markup=False)
    if settings.description:
        _print_dim(console, settings.description)
    print_table(console, TextTable(columns, rows), wide=wide)


def _describe_reason(record: TrialRecord) -> str:
    """Return why a trial failed, was interrupted or repeats another one; empty for other trials."""
    fold = record.config.fold if record.config is not None else None
    change = "with another seed" if fold is None else f"on fold {fold}"
    repeated = f"trial {record.repeats} {change}" if record.repeats is not None else ""
    return "; ".join(filter(None, (repeated, record.reason)))


def print_sections(
    console: Console, facts: Sequence[str], sections: Sequence[ReportSection], *, wide: bool = False
) -> None:
    """Print a report's sections.

    Args:
        console: The console to print to.
        facts: Lines above the sections.
        sections: The sections.
        wide: Show all columns in full, in lines of any length.
    """
    for line in facts:
        _print_dim(console, line)
    for section in sections:
        console.print(f"\n[bold]{escape(section.title)}[/bold]")
        console.print(escape(section.answer))
        if section.rows:
            print_table(console, section.table, wide=wide)


def _print_dim(console: Console, line: str) -> None:
    console.print(Text(line, style="dim"))


def build_scores_table(title: str, scores: Scores) -> RenderableType:
    """Build a table of strict scores by type and of overall scores, with the interval of the strict F1."""
    from clinie_core.scoring.significance import bootstrap_interval

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
