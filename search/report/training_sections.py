"""Sections of a report on the course of the trainings: learning curves and cost."""

from __future__ import annotations

from collections import defaultdict

from search.analysis.findings import Findings
from search.analysis.scored_trials import ScoredTrial
from search.ledger.records import sum_usage
from search.report.section import ReportSection, format_count, format_number

__all__ = ["build_cost", "build_curves"]


def build_curves(findings: Findings) -> ReportSection | None:
    """Build the section with the learning curves of all trials; None without trials."""
    if not findings.trials:
        return None
    epochs = sorted({epoch for trial in findings.trials for epoch in trial.record.epochs})
    sign = 1 if findings.maximized else -1
    ranked = sorted(findings.trials, key=lambda trial: (-sign * trial.score, trial.record.number))
    rows = [(str(t.record.number), t.method, t.record.state, *_list_scores(t, epochs)) for t in ranked]
    complete = findings.complete_trials
    late = sum(t.record.best_epoch == len(t.record.epochs) for t in complete)
    answer = f"dev {findings.metric} after each epoch."
    if complete:
        answer += f" {late} of {len(complete)} complete trials were best in their last epoch"
        answer += ", so that more epochs may help." if 2 * late > len(complete) else "."
    columns = ("trial", "method", "state", *(f"epoch {epoch}" for epoch in epochs))
    optional = tuple(range(3, len(columns) - 1))
    title = "How did the scores develop during training?"
    return ReportSection("curves", title, answer, columns, rows, optional=optional)


def _list_scores(trial: ScoredTrial, epochs: list[int]) -> list[str]:
    values = (trial.record.epochs.get(epoch, {}).get(trial.metric) for epoch in epochs)
    return ["-" if value is None else format_number(value) for value in values]


def build_cost(findings: Findings) -> ReportSection | None:
    """Build the section with the time that trials took, by state and method; None without trials."""
    if not findings.trials:
        return None
    groups: defaultdict[str, list[ScoredTrial]] = defaultdict(list)
    for trial in findings.trials:
        groups[trial.method].append(trial)
    used = [name for name, value in vars(sum_usage(t.record for t in findings.trials)).items() if value is not None]
    rows = []
    for method, own in sorted(groups.items()):
        hours = sum(trial.compute_seconds for trial in own) / 3600
        stopped = sum(t.compute_seconds for t in own if not t.is_complete) / 3600
        epochs = sum(len(trial.record.epochs) for trial in own)
        memory = max(trial.get_metric("peak_memory_mb") for trial in own)
        per_epoch = 3600 * hours / epochs if epochs else 0.0
        cells = [format_number(hours, 3), format_number(stopped, 3), format_number(per_epoch, 1), format_count(memory)]
        usage = sum_usage(trial.record for trial in own)
        cells += [format_number(value or 0.0, 2) for name, value in vars(usage).items() if name in used]
        rows.append((method, str(len(own)), str(epochs), *cells))
    total = sum(trial.compute_seconds for trial in findings.trials) / 3600
    stopped = sum(trial.compute_seconds for trial in findings.trials if not trial.is_complete) / 3600
    share = 100 * stopped / total if total else 0.0
    answer = f"{total:.2f} hours of compute over all workers, {share:.0f} % of them for trials that did not complete."
    times = ("hours", "hours of stopped", "seconds per epoch", "peak memory (MiB)")
    columns = ("method", "trials", "epochs", *times, *({"gpu_hours": "GPU-hours", "cost": "cost"}[n] for n in used))
    return ReportSection("cost", "What did the search cost?", answer, columns, rows)
