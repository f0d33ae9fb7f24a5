"""Sections of a report: a question, its answer and a table, for the terminal and the HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clinie_core.scoring.error_counts import ErrorCounts
from clinie_core.scoring.significance import Comparison
from search.analysis.comparisons import GroupComparison
from search.analysis.findings import CorpusRow, Findings, GroupRow, get_cost
from search.analysis.scored_trials import ScoredTrial
from search.config.description import describe_config
from search.ledger.driver import shorten_names
from search.report.error_sections import build_error_sections
from search.report.section import NO_EVIDENCE, ReportSection, format_count, format_interval, format_number
from search.report.settings import SettingsTable, separate_settings
from search.report.training_sections import build_cost, build_curves

__all__ = ["Curve", "TestSetAccess", "build_sections", "describe_comparison"]

Curve = Sequence[tuple[int, float, float, float]]
"""Points of a learning curve: number of training documents, score, lower and upper end of its interval."""


@dataclass(frozen=True)
class TestSetAccess:
    """One promotion that read the test split, with its time, decision and score."""

    model: str
    when: str
    trial: int
    accesses: int
    decision: str
    score: str


def describe_comparison(comparison: GroupComparison | Comparison | None, first: str, second: str) -> str:
    """Describe a comparison in one sentence."""
    if comparison is None:
        return f"{first} against {second}: not comparable because the counts by document are missing"
    ends = f"{comparison.low:+.4f} to {comparison.high:+.4f}"
    span = f"{comparison.difference:+.4f} (95 % interval {ends}, p = {comparison.p:.3f})"
    if not comparison.significant:
        return f"{NO_EVIDENCE} that {first} and {second} differ: {span}"
    better, worse = (first, second) if comparison.difference > 0 else (second, first)
    return f"{better} beats {worse}: the difference is {span}"


def build_sections(
    findings: Findings,
    *,
    shots: Mapping[str, Curve],
    accesses: Sequence[TestSetAccess],
    corpora: Sequence[CorpusRow] = (),
    errors: ErrorCounts | None = None,
) -> list[ReportSection]:
    """Build all sections of a report, in the order of the page.

    Args:
        findings: Results of the analysis.
        shots: Learning curves by name.
        accesses: Every time that a promotion of the study read the test split.
        corpora: Results for each corpus of a study of several corpora.
        errors: Counts of the best trial's errors; None if they were not stored.
    """
    sections = [
        _build_winner(findings),
        *(build_error_sections(findings.winner.record.number, errors) if findings.winner else ()),
        _build_groups("architectures", "Encoder or decoder?", findings.architectures, findings, "architecture"),
        _build_groups("methods", "Full fine-tuning or which PEFT method?", findings.methods, findings, "method"),
        _build_trends(findings),
        _build_corpora(corpora),
        _build_shots(shots),
        _build_front(findings),
        _build_importances(findings),
        build_curves(findings),
        _build_history(findings),
        build_cost(findings),
        _build_test(accesses),
        _build_trials(findings),
    ]
    return [section for section in sections if section is not None]


def _format_trial_count(count: int) -> str:
    return f"{count} trial" + ("" if count == 1 else "s")


def _describe_trial(trial: ScoredTrial) -> str:
    return describe_config(trial.record.config) if trial.record.config else ""


def _build_winner(findings: Findings) -> ReportSection:
    winner, metric = findings.winner, findings.metric
    title = "Which configuration is best?"
    ended = ", ".join(f"{count} {state}" for state, count in findings.states.items())
    beyond = f"{_format_trial_count(findings.beyond_limits)} beyond {', '.join(map(str, findings.limits))}"
    if winner is None:
        found = (
            f"No complete trial satisfies the limits: {beyond}" if findings.beyond_limits else "No complete trial yet"
        )
        return ReportSection("winner", title, f"{found} ({ended}).")
    answer = f"Trial {winner.record.number} is best with dev {metric} {winner.score:.4f} ({ended}):"
    rankings = {ranking.record.number: ranking for ranking in findings.rankings}
    best = rankings.get(winner.record.number)
    if best is not None and best.spread is not None:
        runs = f"{len(best.scores)} {best.unit}"
        answer = f"Trial {winner.record.number} is best with a mean dev {metric} of {best.mean:.4f} over {runs}"
        answer += f" (standard deviation {best.spread:.4f}; {ended}):"
    answer += f" {_describe_trial(winner)}."
    if findings.limits:
        answer += f" Complete trials that the limits exclude: {beyond}."
    if findings.corrected is not None and (best is None or best.spread is None):
        fair = findings.corrected
        answer += (
            " This score selected the trial and is therefore optimistic: on documents that were not used for the"
            f" selection, the expected score is {fair.corrected:.4f} (95 % interval {fair.low:.4f} to {fair.high:.4f})."
        )
    second = findings.runner_up
    if second is not None:
        names = f"trial {winner.record.number}", f"trial {second.record.number} (the runner-up)"
        answer += f" On the same documents, {describe_comparison(findings.margin, *names)}."
    shown = [(t, span) for t, span in ((winner, findings.interval), (second, None)) if t is not None]
    settings = _separate_settings([t for t, _ in shown])
    rows = [
        (
            f"trial {t.record.number}",
            str(rankings.get(t.record.number, format_number(t.score))),
            format_interval(span),
            *values,
        )
        for (t, span), values in zip(shown, settings.rows, strict=True)
    ]
    columns = ("", f"dev {metric} (optimistic)", "95 % interval", *settings.names)
    return ReportSection("winner", title, answer, columns, rows, settings=settings.names)


def _build_groups(
    key: str, title: str, rows: Sequence[GroupRow], findings: Findings, noun: str
) -> ReportSection | None:
    if not rows:
        return None
    metric, equal = findings.metric, findings.equal_epochs
    reference = next(row for row in rows if row.is_reference)
    others = [row for row in rows if row is not reference]
    said = [describe_comparison(row.against, row.name, reference.name) for row in others if row.complete]
    unfinished = [row.name for row in others if not row.complete]
    said += [f"{', '.join(unfinished)}: no complete trial"] if unfinished else []
    tries = next((row.against.tries for row in rows if row.against is not None), 1)
    answer = f"Complete trials, compared by the expected best of {_format_trial_count(tries)}: " + "; ".join(said) + "."
    if equal is not None:
        answer += f" Stopped trials have fewer epochs; the column {_describe_epochs(equal)} includes them."
    columns = (
        noun,
        "complete of all trials",
        f"best dev {metric}",
        _describe_epochs(equal),
        "95 % interval",
        f"share of {reference.name}",
        "trained parameters",
        "peak memory (MiB)",
        "seconds per epoch",
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
                f"{row.complete} of {row.trials}",
                format_number(best.score) + ("" if row.complete else f" ({len(best.record.epochs)} epochs)"),
                format_number(row.score_at_equal_epochs),
                format_interval(row.interval),
                f"{100 * row.relative_score:.1f} %" if row.relative_score is not None else "-",
                format_count(best.get_metric("trainable_parameters")),
                format_count(best.get_metric("peak_memory_mb")),
                format_number(best.get_metric("seconds"), 1),
                format_number(best.get_metric("documents_per_second"), 1),
                decided,
            )
        )
    return ReportSection(key, title, answer, columns, cells, optional=(4, 7, 8, 9))


def _describe_epochs(epochs: int | None) -> str:
    """Return when the scores of all trials are compared."""
    return "after all epochs" if epochs is None else f"after {epochs} epoch{'s' if epochs > 1 else ''}"


def _build_trends(findings: Findings) -> ReportSection | None:
    if not findings.trends:
        return None
    rows = []
    for path, found in findings.trends.items():
        direction = "rises" if found.correlation > 0 else "falls"
        said = f"the score {direction} with it" if found.significant else NO_EVIDENCE
        rows.append((path, str(found.trials), f"{found.correlation:+.2f}", f"{found.p:.3f}", said))
    sure = [row[0] for row in rows if row[4] != NO_EVIDENCE]
    answer = (
        f"The score correlates with {', '.join(sure)} (rank correlation over the trials with the dimension). A sampler"
        " that prefers good values tries them more often, so a trend is a hint and not an experiment."
        if sure
        else f"{NO_EVIDENCE.capitalize()} that the score depends on any numeric dimension."
    )
    if findings.equal_epochs is not None:
        answer += f" Scores are those {_describe_epochs(findings.equal_epochs)}, which all trials have."
    return ReportSection(
        "trends",
        "How does the score respond to ranks, learning rates and other numbers?",
        answer,
        ("dimension", "trials", "rank correlation", "p", "result"),
        rows,
    )


def _build_corpora(corpora: Sequence[CorpusRow]) -> ReportSection | None:
    """Compare one model for several corpora with one model per corpus."""
    if not corpora:
        return None
    said, rows = [], []
    for row in corpora:
        if row.study is not None:
            compared = describe_comparison(row.comparison, "one model for all", f"its own model ({row.study})")
            said.append(f"{row.corpus}: {compared}")
        decided = row.comparison is not None and row.comparison.significant
        rows.append(
            (
                row.corpus,
                format_number(row.together),
                format_number(row.alone if row.alone is not None else math.nan),
                row.study or "-",
                "-" if row.comparison is None else f"{row.comparison.difference:+.4f}" if decided else NO_EVIDENCE,
            )
        )
    answer = (
        ". ".join(said) + "."
        if said
        else "This home folder has no study of a single one of these corpora to compare with."
    )
    columns = ("corpus", "strict F1, one model for all", "own model", "study", "difference")
    return ReportSection("corpora", "One model for several corpora, or one per corpus?", answer, columns, rows)


def _build_shots(shots: Mapping[str, Curve]) -> ReportSection | None:
    if not shots:
        return None
    rows = [
        (name, str(documents), format_number(score), f"{low:.4f} to {high:.4f}")
        for name, points in shots.items()
        for documents, score, low, high in points
    ]
    ends = {name: (points[0], points[-1]) for name, points in shots.items()}
    said = (f"{name}: {a[1]:.3f} with {a[0]}, {b[1]:.3f} with {b[0]}" for name, (a, b) in ends.items())
    columns = ("", "documents", "strict F1", "interval")
    return ReportSection("shots", "How many training documents are needed?", "; ".join(said) + ".", columns, rows)


def _build_front(findings: Findings) -> ReportSection | None:
    if not findings.front:
        return None
    settings = _separate_settings(findings.front)
    rows = [
        (
            f"trial {t.record.number}",
            format_number(t.score),
            format_number(get_cost(t, "seconds_per_document") * 1000, 1),
            format_count(t.get_metric("peak_memory_mb")),
            format_count(t.get_metric("trainable_parameters")),
            *values,
        )
        for t, values in zip(findings.front, settings.rows, strict=True)
    ]
    columns = (
        "",
        f"dev {findings.metric}",
        "ms per document",
        "peak memory (MiB)",
        "trained parameters",
        *settings.names,
    )
    answer = (
        f"{len(rows)} of {_format_trial_count(len(findings.complete_trials))}"
        f" {'is' if len(rows) == 1 else 'are'} Pareto-optimal: no other complete trial is at least as good in all of"
        " these columns. Stopped trials are left out."
    )
    title = "What does the score cost in speed, memory and parameters?"
    return ReportSection("front", title, answer, columns, rows, settings=settings.names)


def _build_importances(findings: Findings) -> ReportSection | None:
    if not findings.importances:
        return None
    rows = [(path, f"{100 * share:.1f} %") for path, share in findings.importances.items()]
    answer = (
        f"Among the dimensions that all finished trials have, {rows[0][0]} best distinguishes the top 10 % of trials"
        " (PED-ANOVA)."
    )
    return ReportSection("importances", "Which dimensions mattered?", answer, ("dimension", "share"), rows)


def _build_history(findings: Findings) -> ReportSection | None:
    if not findings.history:
        return None
    _, hours, best = findings.history[-1]
    if not math.isfinite(best):
        answer = f"{_format_trial_count(len(findings.history))} in {hours:.2f} hours of compute; none is complete."
        return ReportSection("history", "Did more trials help?", answer)
    first = next(i for i, (_, _, score) in enumerate(findings.history, start=1) if score == best)
    answer = (
        f"{_format_trial_count(len(findings.history))} in {hours:.2f} hours of compute; the best score came from the"
        f" {first}{'st' if first == 1 else 'nd' if first == 2 else 'rd' if first == 3 else 'th'} trial to end."
    )
    return ReportSection("history", "Did more trials help?", answer)


def _build_test(accesses: Sequence[TestSetAccess]) -> ReportSection:
    title = "What is the test score, and how often was the test split read?"
    if not accesses:
        return ReportSection("test", title, "The test split has not been read. A promotion accesses it.")
    rows = [(r.model, r.when, f"trial {r.trial}", str(r.accesses), r.decision, r.score) for r in accesses]
    times = max(r.accesses for r in accesses)
    answer = (
        f"Read {times} time{'s' if times > 1 else ''} by promotions; each further read has a stricter significance"
        " level."
    )
    return ReportSection(
        "test", title, answer, ("model", "when", "trial", "read no.", "decision", "test strict F1"), rows
    )


def _build_trials(findings: Findings) -> ReportSection:
    sign = -1 if findings.maximized else 1
    ranked = sorted(findings.trials, key=lambda t: (sign * t.score, t.record.number))
    settings = _separate_settings(ranked)
    drivers = shorten_names(t.record.driver for t in ranked)
    classes = any(t.record.resource_class for t in ranked)
    rows = [
        (
            str(t.record.number),
            t.record.state,
            format_number(t.score),
            f"{t.record.best_epoch} of {len(t.record.epochs)}",
            *values,
            *([drivers.get(t.record.driver or "", "-")] if len(drivers) > 1 else []),
            *([t.record.resource_class or "-"] if classes else []),
        )
        for t, values in zip(ranked, settings.rows, strict=True)
    ]
    columns = ("trial", "state", f"dev {findings.metric} (optimistic)", "best epoch", *settings.names)
    columns += ("driver",) if len(drivers) > 1 else ()
    columns += ("class",) if classes else ()
    answer = f"All trials with at least one epoch, best first. To train one again: clinie repeat {findings.study} TRIAL"
    return ReportSection("trials", "All trials", answer, columns, rows, settings=settings.names)


def _separate_settings(trials: Sequence[ScoredTrial]) -> SettingsTable:
    return separate_settings([trial.record.config for trial in trials])
