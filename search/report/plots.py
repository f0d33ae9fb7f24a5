"""Figures of a report, drawn by plotly."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from search.analysis.findings import Findings, GroupRow, get_cost
from search.analysis.scored_trials import ScoredTrial

__all__ = [
    "plot_curves",
    "plot_front",
    "plot_groups",
    "plot_history",
    "plot_importances",
    "plot_response",
    "plot_shots",
]

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac")
LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "height": 360,
    "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "legend": {"orientation": "h", "y": 1.12},
    "colorway": COLOURS,
}
COST_NAMES = {
    "seconds_per_document": "prediction time per document (s)",
    "peak_memory_mb": "peak memory (MiB)",
    "trainable_parameters": "trained parameters",
}


def _make_figure(traces: Sequence[Any], x: str, y: str, *, log_x: bool = False) -> go.Figure:
    figure = go.Figure(traces)
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title=x, type="log" if log_x else None)
    figure.update_yaxes(title=y)
    return figure


def _spans_decades(values: Sequence[float]) -> bool:
    """Return whether a logarithmic axis shows values better than a linear one."""
    return min(values) > 0 and max(values) / min(values) > 8


def _group_by_method(trials: Sequence[ScoredTrial]) -> dict[str, list[ScoredTrial]]:
    groups: defaultdict[str, list[ScoredTrial]] = defaultdict(list)
    for trial in trials:
        groups[trial.method].append(trial)
    return dict(sorted(groups.items()))


def plot_groups(rows: Sequence[GroupRow], metric: str) -> go.Figure:
    """Plot the score of the best trial of each group with its interval."""
    names, scores = [row.name for row in rows], [row.best.score for row in rows]
    up = [row.interval[1] - row.best.score if row.interval else 0.0 for row in rows]
    down = [row.best.score - row.interval[0] if row.interval else 0.0 for row in rows]
    bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    trace = go.Scatter(x=names, y=scores, mode="markers", error_y=bars, marker={"size": 10})
    figure = _make_figure([trace], "", f"dev {metric}")
    figure.update_xaxes(range=[-0.5, len(names) - 0.5])  # otherwise the first and last group are at the edges
    return figure


def plot_response(trials: Sequence[ScoredTrial], path: str, metric: str) -> go.Figure:
    """Plot the score against a numeric dimension, by method."""
    traces = []
    for method, own in _group_by_method([t for t in trials if path in t.record.parameters]).items():
        x = [float(t.record.parameters[path]) for t in own]
        traces.append(go.Scatter(x=x, y=[t.score for t in own], mode="markers", name=method, text=_label_trials(own)))
    values = [float(t.record.parameters[path]) for t in trials if path in t.record.parameters]
    return _make_figure(traces, path, f"dev {metric}", log_x=_spans_decades(values))


def plot_curves(findings: Findings) -> go.Figure:
    """Plot the score of each trial after each epoch, with one colour per method; complete trials have solid lines."""
    methods = list(_group_by_method(findings.trials))
    traces, named = [], set[str]()
    for trial in findings.trials:
        epochs = sorted(trial.record.epochs)
        scores = [trial.record.epochs[epoch].get(findings.metric) for epoch in epochs]
        colour = COLOURS[methods.index(trial.method) % len(COLOURS)]
        traces.append(
            go.Scatter(
                x=epochs,
                y=scores,
                mode="lines+markers",
                name=trial.method,
                legendgroup=trial.method,
                showlegend=trial.method not in named,
                text=[f"trial {trial.record.number}"] * len(epochs),
                line={"color": colour, "dash": "solid" if trial.is_complete else "dot"},
                marker={"size": 5},
            )
        )
        named.add(trial.method)
    figure = _make_figure(traces, "epoch", f"dev {findings.metric}")
    last = max((max(trial.record.epochs, default=1) for trial in findings.trials), default=1)
    figure.update_xaxes(dtick=math.ceil(last / 20))  # an epoch has a whole number
    return figure


def plot_front(findings: Findings, name: str) -> go.Figure:
    """Plot the score against one cost and mark the trials on the Pareto front of all costs."""
    front = {t.record.number for t in findings.front}
    traces = []
    for method, own in _group_by_method(findings.complete_trials).items():
        symbols = ["diamond" if t.record.number in front else "circle-open" for t in own]
        traces.append(
            go.Scatter(
                x=[get_cost(t, name) for t in own],
                y=[t.score for t in own],
                mode="markers",
                name=method,
                text=_label_trials(own),
                marker={"symbol": symbols, "size": 9},
            )
        )
    costs = [get_cost(trial, name) for trial in findings.complete_trials]
    return _make_figure(traces, COST_NAMES[name], f"dev {findings.metric}", log_x=_spans_decades(costs))


def plot_history(findings: Findings, *, against: str) -> go.Figure:
    """Plot the best score so far against the number of trials or against hours of compute."""
    x = [number + 1 if against == "trials" else hours for number, (_, hours, _) in enumerate(findings.history)]
    y = [best if math.isfinite(best) else None for _, _, best in findings.history]
    label = "finished trials" if against == "trials" else "hours of compute, all workers"
    return _make_figure(
        [go.Scatter(x=x, y=y, mode="lines+markers", line={"shape": "hv"})], label, f"best dev {findings.metric}"
    )


def plot_importances(importances: Mapping[str, float]) -> go.Figure:
    """Plot the share of each dimension, with the largest at the top."""
    names = list(importances)[::-1]
    bar = go.Bar(x=[importances[n] for n in names], y=names, orientation="h")
    figure = _make_figure([bar], "share of the variation", "")
    figure.update_layout(margin={"l": 260, "r": 20, "t": 20, "b": 50})
    return figure


def plot_shots(curves: Mapping[str, Sequence[tuple[int, float, float, float]]], metric: str) -> go.Figure:
    """Plot one learning curve per name, with points ``(documents, score, low, high)``."""
    traces = []
    for name, points in curves.items():
        up = [high - score for _, score, _, high in points]
        down = [score - low for _, score, low, _ in points]
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        x, y = [str(p[0]) for p in points], [p[1] for p in points]
        traces.append(go.Scatter(x=x, y=y, mode="lines+markers", name=name, error_y=bars))
    figure = _make_figure(traces, "training documents", metric)
    figure.update_xaxes(type="category")
    return figure


def _label_trials(trials: Sequence[ScoredTrial]) -> list[str]:
    return [f"trial {t.record.number}" for t in trials]
