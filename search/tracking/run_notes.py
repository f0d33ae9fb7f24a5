"""Descriptions of trials in MLflow: configuration, score with interval, end, and the command that repeats the trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clinie_core.config import TrialConfig
from clinie_core.scoring.document_counts import FILE as COUNTS_FILE
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.significance import Rate, bootstrap_interval
from search.config.description import format_formulation
from search.tracking.description_table import make_description_table

__all__ = ["TrialEnd", "compute_interval", "describe_trial"]

RESAMPLES = 2_000
RATES: tuple[Rate, ...] = ("f1", "precision", "recall")


@dataclass(frozen=True)
class TrialEnd:
    """State, score and number of epochs of a trial.

    Args:
        state: State of the trial.
        epochs: Number of trained epochs; None if unknown.
        reason: Reason of the end, without document text.
        best_epoch: 1-based number of the best epoch.
        value: Value of the study's first objective in that epoch.
        interval: 95 % interval of that value, by bootstrap over documents.
    """

    state: str
    epochs: int | None = None
    reason: str | None = None
    best_epoch: int | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None


def describe_trial(study: str, number: int, config: TrialConfig, metric: str, end: TrialEnd) -> str:
    """Describe a trial as Markdown.

    Args:
        study: Name of the study.
        number: Number of the trial.
        config: Its configuration.
        metric: Metric of the study's first objective.
        end: Its state, score and number of epochs.
    """
    repeat = f"Train it again with `clinie repeat {study} {number}`."
    lines = [_describe_score(metric, end), _describe_end(study, config, end), repeat]  # MLflow hides the rest at first
    lines.append(make_description_table(("setting", "value"), _list_settings(config)))
    return "\n\n".join(filter(None, lines))


def compute_interval(folder: Path, metric: str) -> tuple[float, float] | None:
    """Compute the interval of a dev score from the counts by document in a checkpoint's folder.

    Returns:
        None if the folder has no counts of this metric.
    """
    rate = next((r for r in RATES if metric.endswith(f"_{r}")), None)
    if rate is None or not (folder / COUNTS_FILE).is_file():
        return None
    counts = DocumentCounts.read(folder)
    if counts.metric != metric or not len(counts.counts):
        return None
    return bootstrap_interval(counts.counts, rate, resamples=RESAMPLES)


def _describe_score(metric: str, end: TrialEnd) -> str:
    if end.value is None:
        return ""
    number = f"{end.value:.4f}" if abs(end.value) < 1000 else f"{end.value:,.0f}"
    span = f" (95 % interval {end.interval[0]:.4f} to {end.interval[1]:.4f})" if end.interval else ""
    return f"`{metric}` **{number}**{span} in epoch {end.best_epoch}, on dev."


def _describe_end(study: str, config: TrialConfig, end: TrialEnd) -> str:
    done = f" after {end.epochs} of {config.epochs} epochs" if end.epochs else ""
    reason = f": {end.reason.rstrip('.')}" if end.reason else ""
    if end.state == "complete":
        return f"Complete{done}."
    if end.state == "pruned":
        return f"Stopped early{done}{reason or ', because other trials were better at the same point'}."
    if end.state == "infeasible":
        return f"Infeasible{done}{reason}."
    if end.state == "failed":
        return f"Failed{done}{reason}."
    if end.state == "running":
        return "Running."
    return f"{end.state.capitalize()}{done}; `clinie resume {study}` continues it."


def _list_settings(config: TrialConfig) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("backbone", f"`{config.backbone.name}`"),
        ("task", config.task),
        ("formulation", format_formulation(config)),
        ("fine-tuning method", config.finetuning.name),
    ]
    parts = (config.formulation, config.relation_formulation, config.finetuning)
    rows += [(k, _format(v)) for part in parts if part is not None for k, v in part.parameters.items()]
    rows += [("batch size", config.batch_size), ("epochs at most", config.epochs), ("seed", config.seed)]
    return rows


def _format(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
