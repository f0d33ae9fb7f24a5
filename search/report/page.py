"""A study's report as one self-contained HTML page, including its figures and their library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.analysis.findings import COSTS, Findings
from search.report import plots
from search.report.section import ReportSection
from search.report.sections import Curve

__all__ = ["render_page"]

TEMPLATE = Path(__file__).with_name("page.html")
NUMBER = re.compile(r"[-+]?[\d,.]+( %)?( \(.*\))?$")
MISSING = "-"
FIGURE_CONFIG = {"displayModeBar": False, "responsive": True}
RESPONSES = 6
"""Largest number of dimensions whose response is plotted."""


def render_page(
    title: str, facts: Sequence[str], sections: Sequence[ReportSection], findings: Findings, shots: Mapping[str, Curve]
) -> str:
    """Render the report as HTML.

    Args:
        title: Heading of the page.
        facts: Lines that describe the study.
        sections: Sections of the report.
        findings: Results shown in the figures.
        shots: Learning curves by name.
    """
    environment = Environment(autoescape=True)
    figures = {
        section.key: [
            Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=FIGURE_CONFIG)) for figure in drawn
        ]
        for section in sections
        if (drawn := _build_figures(section.key, findings, shots))
    }
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    script = Markup(get_plotlyjs()) if figures else ""
    numeric = {section.key: _find_numeric_columns(section) for section in sections}
    return page.render(title=title, facts=facts, sections=sections, figures=figures, numeric=numeric, script=script)


def _find_numeric_columns(section: ReportSection) -> frozenset[int]:
    """Return the indices of the columns, other than the first, that contain numbers only."""
    columns = enumerate(zip(*section.rows, strict=True))
    found = {number: [cell for cell in cells if cell != MISSING] for number, cells in columns if number}
    return frozenset(number for number, cells in found.items() if cells and all(map(NUMBER.match, cells)))


def _build_figures(key: str, findings: Findings, shots: Mapping[str, Curve]) -> list[Any]:
    metric = findings.metric
    if key == "architectures":
        return [plots.plot_groups(findings.architectures, metric)]
    if key == "methods":
        return [plots.plot_groups(findings.methods, metric)]
    if key == "trends":
        # Ranks and learning rates come first because users ask about them most.
        paths = sorted(findings.trends, key=lambda path: (not path.endswith(("rank", "learning_rate")), path))
        trials = findings.complete_trials
        shown = [path for path in paths if len({t.record.parameters.get(path) for t in trials} - {None}) > 1]
        return [plots.plot_response(trials, path, metric) for path in shown[:RESPONSES]]
    if key == "shots":
        return [plots.plot_shots(shots, "strict F1")]
    if key == "front":
        return [plots.plot_front(findings, name) for name in COSTS] if len(findings.complete_trials) > 1 else []
    if key == "importances":
        return [plots.plot_importances(findings.importances)]
    if key == "curves":
        return [plots.plot_curves(findings)]
    if key == "history":
        changes = len({best for _, _, best in findings.history if math.isfinite(best)}) > 1
        return [plots.plot_history(findings, against=axis) for axis in ("trials", "hours")] if changes else []
    return []
