"""A report's tables with the sentence that each of them comes to; the terminal and the page show the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clinie_core.scoring.significance import Comparison
from search.analysis.comparisons import GroupComparison
from search.analysis.findings import CorpusRow, Findings, GroupRow, ScoredTrial, cost
from search.config.description import describe_config

__all__ = ["Curve", "ReportSection", "TestSetAccess", "build_sections", "verdict"]

Curve = Sequence[tuple[int, float, float, float]]
"""Documents trained on, score, lower and upper end of its interval."""
NO_EVIDENCE = "no evidence"


@dataclass(frozen=True)
class ReportSection:
    """One question of a report.

    Args:
        key: Names it for the page's figures.
        title: The question.
        answer: What the data say, in a sentence or two.
        columns: Headings.
        rows: Cells as they are shown.
        narrow: Columns that a narrow terminal has room for; all where left out.
    """

    key: str
    title: str
    answer: str
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = field(default_factory=list)
    narrow: tuple[int, ...] = ()


@dataclass(frozen=True)
class TestSetAccess:
    """One promotion of the study: when it read the test split, what it decided, and the score."""

    model: str
    when: str
    trial: int
    reads: int
    decision: str
    score: str


def verdict(comparison: GroupComparison | Comparison | None, first: str, second: str) -> str:
    """A comparison in words."""
    if comparison is None:
        return f"{first} against {second}: not comparable, since the counts by document are missing"
    ends = f"{comparison.low:+.4f} to {comparison.high:+.4f}"
    span = f"{comparison.difference:+.4f} (95 % interval {ends}, p = {comparison.p:.3f})"
    if not comparison.significant:
        return f"{NO_EVIDENCE} that {first} and {second} differ: {span}"
    better, worse = (first, second) if comparison.difference > 0 else (second, first)
    return f"{better} beats {worse}: {first} less {second} is {span}"


def build_sections(
    findings: Findings,
    *,
    shots: Mapping[str, Curve],
    reads: Sequence[TestSetAccess],
    corpora: Sequence[CorpusRow] = (),
) -> list[ReportSection]:
    """All sheets of a report, in its order.

    Args:
        findings: What the study found.
        shots: Curves by number of documents, by name.
        reads: Every time that a promotion of the study read the test split.
        corpora: For a study of several corpora, each of them.
    """
    sheets = [
        _winner(findings),
        _groups("architectures", "Encoder or decoder?", findings.architectures, findings.metric, "architecture"),
        _groups("methods", "Full fine-tuning or which PEFT method?", findings.methods, findings.metric, "method"),
        _trends(findings),
        _corpora(corpora),
        _shots(shots),
        _front(findings),
        _importances(findings),
        _history(findings),
        _test(reads),
        _trials(findings),
    ]
    return [sheet for sheet in sheets if sheet is not None]


def _number(value: float, digits: int = 4) -> str:
    return "-" if not math.isfinite(value) else f"{value:.{digits}f}"


def _count(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:,.0f}"


def _trials_in_words(count: int) -> str:
    return f"{count} trial" + ("" if count == 1 else "s")


def _span(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "-"


def _words(trial: ScoredTrial) -> str:
    return describe_config(trial.record.config) if trial.record.config else ""


def _winner(findings: Findings) -> ReportSection:
    winner, metric = findings.winner, findings.metric
    title = "What won, and by how much?"
    ended = ", ".join(f"{count} {state}" for state, count in findings.states.items())
    if winner is None:
        return ReportSection("winner", title, f"No trial has finished yet ({ended}).")
    answer = f"Trial {winner.record.number} won with dev {metric} {winner.score:.4f} ({ended}): {_words(winner)}."
    if findings.corrected is not None:
        fair = findings.corrected
        answer += (
            f" That score chose the winner, so it is optimistic: on documents that did not choose it, the winner of"
            f" such a search is expected at {fair.corrected:.4f} (95 % interval {fair.low:.4f} to {fair.high:.4f})."
        )
    second = findings.runner_up
    if second is not None:
        names = f"trial {winner.record.number}", f"trial {second.record.number}, the runner-up,"
        answer += f" On the same documents, {verdict(findings.margin, *names)}."
    rows = [
        (f"trial {t.record.number}", _number(t.score), _span(span), _words(t))
        for t, span in ((winner, findings.interval), (second, None))
        if t is not None
    ]
    return ReportSection(
        "winner", title, answer, ("", f"dev {metric} (optimistic)", "95 % interval", "configuration"), rows
    )


def _groups(key: str, title: str, rows: Sequence[GroupRow], metric: str, noun: str) -> ReportSection | None:
    if not rows:
        return None
    reference = next(row for row in rows if row.is_reference)
    said = [verdict(row.against, row.name, reference.name) for row in rows if row is not reference]
    tries = next((row.against.tries for row in rows if row.against is not None), 1)
    answer = f"By the expected best of {_trials_in_words(tries)}: " + "; ".join(said) + "."
    columns = (
        noun,
        "trials",
        f"best dev {metric}",
        "95 % interval",
        f"share of {reference.name}",
        "parameters trained",
        "peak memory (MiB)",
        "seconds an epoch",
        "documents/s",
        f"against {reference.name}",
    )
    cells = []
    for row in rows:
        best, against = row.best, row.against
        decided = "-" if against is None else (f"{against.difference:+.4f}" if against.significant else NO_EVIDENCE)
        cells.append(
            (
                row.name,
                str(row.trials),
                _number(best.score),
                _span(row.interval),
                f"{100 * row.kept:.1f} %" if row.kept is not None else "-",
                _count(best.get_metric("trainable_parameters")),
                _count(best.get_metric("peak_memory_mb")),
                _number(best.get_metric("seconds"), 1),
                _number(best.get_metric("documents_per_second"), 1),
                decided,
            )
        )
    return ReportSection(key, title, answer, columns, cells, narrow=(0, 1, 2, 4, 5, 9))


def _trends(findings: Findings) -> ReportSection | None:
    if not findings.trends:
        return None
    rows = []
    for path, found in findings.trends.items():
        direction = "rises" if found.correlation > 0 else "falls"
        said = f"the score {direction} with it" if found.significant else NO_EVIDENCE
        rows.append((path, str(found.trials), f"{found.correlation:+.2f}", f"{found.p:.3f}", said))
    sure = [row[0] for row in rows if row[4] != NO_EVIDENCE]
    answer = (
        f"The score follows {', '.join(sure)}. Ranks are correlated over the trials that have the dimension; a sampler"
        " that follows the score tries good values more often, so a trend is a hint and not an experiment."
        if sure
        else f"{NO_EVIDENCE.capitalize()} that the score follows any numeric dimension."
    )
    return ReportSection(
        "trends",
        "How does the score respond to ranks, learning rates and other numbers?",
        answer,
        ("dimension", "trials", "rank correlation", "p", "verdict"),
        rows,
    )


def _corpora(corpora: Sequence[CorpusRow]) -> ReportSection | None:
    """One model for several corpora against one model each."""
    if not corpora:
        return None
    said, rows = [], []
    for row in corpora:
        if row.study is not None:
            said.append(
                f"{row.corpus}: {verdict(row.comparison, 'one model for all', f'one for it alone ({row.study})')}"
            )
        decided = row.comparison is not None and row.comparison.significant
        rows.append(
            (
                row.corpus,
                _number(row.together),
                _number(row.alone if row.alone is not None else math.nan),
                row.study or "-",
                "-" if row.comparison is None else f"{row.comparison.difference:+.4f}" if decided else NO_EVIDENCE,
            )
        )
    answer = (
        ". ".join(said) + "." if said else "No study of one of these corpora alone is in this home to compare with."
    )
    columns = ("corpus", "strict F1, one model for all", "one for it alone", "study", "difference")
    return ReportSection("corpora", "One model for several corpora, or one each?", answer, columns, rows)


def _shots(shots: Mapping[str, Curve]) -> ReportSection | None:
    if not shots:
        return None
    rows = [
        (name, str(documents), _number(score), f"{low:.4f} to {high:.4f}")
        for name, points in shots.items()
        for documents, score, low, high in points
    ]
    ends = {name: (points[0], points[-1]) for name, points in shots.items()}
    said = (f"{name}: {a[1]:.3f} with {a[0]}, {b[1]:.3f} with {b[0]}" for name, (a, b) in ends.items())
    columns = ("", "documents", "strict F1", "interval")
    return ReportSection("shots", "How many documents does it take?", "; ".join(said) + ".", columns, rows)


def _front(findings: Findings) -> ReportSection | None:
    if not findings.front:
        return None
    rows = [
        (
            f"trial {t.record.number}",
            _number(t.score),
            _number(cost(t, "seconds_per_document") * 1000, 1),
            _count(t.get_metric("peak_memory_mb")),
            _count(t.get_metric("trainable_parameters")),
            _words(t),
        )
        for t in findings.front
    ]
    columns = (
        "",
        f"dev {findings.metric}",
        "ms a document",
        "peak memory (MiB)",
        "parameters trained",
        "configuration",
    )
    kept = f"{len(rows)} {'is' if len(rows) == 1 else 'are'} beaten"
    answer = f"Of {_trials_in_words(len(findings.trials))}, {kept} by no other in all of these at once."
    return ReportSection("front", "What does the score cost in speed, memory and parameters?", answer, columns, rows)


def _importances(findings: Findings) -> ReportSection | None:
    if not findings.importances:
        return None
    rows = [(path, f"{100 * share:.1f} %") for path, share in findings.importances.items()]
    answer = (
        f"Among the dimensions that every finished trial has, {rows[0][0]} explains most of what sets the best tenth"
        " apart (PED-ANOVA)."
    )
    return ReportSection("importances", "Which dimensions mattered?", answer, ("dimension", "share"), rows)


def _history(findings: Findings) -> ReportSection | None:
    if not findings.history:
        return None
    _, hours, best = findings.history[-1]
    first = next(i for i, (_, _, score) in enumerate(findings.history, start=1) if score == best)
    answer = (
        f"{_trials_in_words(len(findings.history))} in {hours:.2f} hours of compute; the best score was reached by the"
        f" {first}{'st' if first == 1 else 'nd' if first == 2 else 'rd' if first == 3 else 'th'} trial that ended."
    )
    return ReportSection("history", "Did more trials help?", answer)


def _test(reads: Sequence[TestSetAccess]) -> ReportSection:
    title = "What does the test split say, and how often was it read?"
    if not reads:
        return ReportSection("test", title, "Nothing: the test split has not been read. A promotion reads it.")
    rows = [(r.model, r.when, f"trial {r.trial}", str(r.reads), r.decision, r.score) for r in reads]
    times = max(r.reads for r in reads)
    answer = (
        f"Read {times} time{'s' if times > 1 else ''} by promotions; each read after the first is held to a stricter"
        " level."
    )
    return ReportSection(
        "test", title, answer, ("model", "when", "trial", "read no.", "decision", "test strict F1"), rows
    )


def _trials(findings: Findings) -> ReportSection:
    sign = -1 if findings.maximized else 1
    rows = [
        (
            str(t.record.number),
            t.record.state,
            _number(t.score),
            f"{t.record.best_epoch} of {len(t.record.epochs)}",
            _words(t),
            f"clinie repeat {findings.study} {t.record.number}",
        )
        for t in sorted(findings.trials, key=lambda t: (sign * t.score, t.record.number))
    ]
    columns = ("trial", "state", f"dev {findings.metric} (optimistic)", "best epoch", "configuration", "again")
    answer = "Every trial that did an epoch, best first, with the command that trains it again."
    return ReportSection("trials", "All trials", answer, columns, rows, narrow=(0, 1, 2, 4))
