"""Sections of a report that explain the score of the best trial: scores by type and counts of errors."""

from __future__ import annotations

from collections.abc import Mapping

from clinie_core.scoring.error_analysis import KINDS, Kind
from clinie_core.scoring.error_counts import ErrorCounts, ErrorTable
from clinie_core.scoring.scores import Counts
from clinie_core.scoring.significance import bootstrap_interval
from search.report.section import ReportSection, format_interval

__all__ = ["build_error_sections"]

TITLES = {
    "concepts by type": "Which errors does the best trial make, by concept type?",
    "concepts by length": "Do its errors depend on the length of the document?",
    "relations by type": "Which errors does it make, by relation type?",
    "relations by length": "Do the errors in relations depend on the length of the document?",
    "relations by distance": "Do the errors in relations depend on the distance between the concepts?",
    "relations by concepts": "Do the errors in relations come from the concepts?",
}
MEANING = (
    "An outcome is correct, missed, spurious, or has the wrong boundary, the wrong type, or both. Each annotation"
    " counts once."
)


def build_error_sections(number: int, errors: ErrorCounts | None) -> list[ReportSection]:
    """Build the sections on the errors of a trial.

    Args:
        number: Number of the trial.
        errors: Its counts on dev; None if they were not stored.

    Returns:
        A section with the scores by type, and one for each table of errors; none without counts.
    """
    if errors is None or not errors.documents:
        return []
    tables = [
        _build_table(name, title, errors.tables[name]) for name, title in TITLES.items() if errors.tables.get(name)
    ]
    return [_build_types(number, errors), *tables]


def _build_types(number: int, errors: ErrorCounts) -> ReportSection:
    rows, by_f1 = [], []
    for type_ in sorted(errors.types):
        documents = errors.expand(type_)
        counts = Counts(*map(float, documents.sum(axis=0)))
        if not counts.tp + counts.fn + counts.fp:
            continue
        values = [f"{value:.4f}" for value in (counts.precision, counts.recall, counts.f1)]
        rows.append((type_, *values, format_interval(bootstrap_interval(documents)), f"{counts.tp + counts.fn:,.0f}"))
        by_f1.append((counts.f1, type_))
    answer = f"Strict scores of trial {number} on {errors.documents:,} dev documents."
    if len(by_f1) > 1:
        (low, worst), (high, best) = min(by_f1), max(by_f1)
        answer += f" The best type is {best} (F1 {high:.4f}), the worst is {worst} (F1 {low:.4f})."
    columns = ("type", "precision", "recall", "F1", "95 % interval of F1", "gold annotations")
    return ReportSection("types", "How good is the best trial at each type?", answer, columns, rows)


def _build_table(name: str, title: str, table: ErrorTable) -> ReportSection:
    rows = [
        (row, *(f"{counts.get(kind, 0):,}" for kind in KINDS), f"{100 * _get_error_share(counts):.1f} %")
        for row, counts in table.items()
    ]
    total = {kind: sum(counts.get(kind, 0) for counts in table.values()) for kind in KINDS}
    wrong = [kind for kind in KINDS if kind != "correct"]
    worst = max(wrong, key=lambda kind: total[kind])
    errors = sum(total[kind] for kind in wrong)
    answer = MEANING
    if errors:
        answer = f"{errors:,} errors; the most frequent kind is {worst} ({total[worst]:,}). {MEANING}"
    if len(table) > 1:
        highest = max(table, key=lambda row: _get_error_share(table[row]))
        answer += f" The share of errors is highest for {highest}."
    columns = (name.partition(" by ")[2], *KINDS, "errors")
    return ReportSection(f"errors-{name.replace(' ', '-')}", title, answer, columns, rows)


def _get_error_share(counts: Mapping[Kind, int]) -> float:
    """Return the share of outcomes that are not correct."""
    total = sum(counts.values())
    return 1 - counts.get("correct", 0) / total if total else 0.0
