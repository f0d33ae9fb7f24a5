"""A study's report as one page of HTML that needs nothing else: its figures and their library are inside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.analysis.findings import COSTS, Findings
from search.report import plots
from search.report.sections import Curve, ReportSection

__all__ = ["render_page"]

TEMPLATE = Path(__file__).with_name("page.html")
NUMBER = re.compile(r"[-+]?[\d,.]+( %)?$")
RESPONSES = 6
"""Most dimensions whose response is drawn."""


def render_page(
    title: str, facts: str, sheets: Sequence[ReportSection], findings: Findings, shots: Mapping[str, Curve]
) -> str:
    """Render the page.

    Args:
        title: Its heading.
        facts: One line on what it is about.
        sheets: Its sections.
        findings: What the figures show.
        shots: Curves by number of documents.
    """
    environment = Environment(autoescape=True)
    environment.tests["number_like"] = lambda cell: bool(NUMBER.match(str(cell)))
    figures = {
        sheet.key: [Markup(figure.to_html(full_html=False, include_plotlyjs=False)) for figure in drawn]
        for sheet in sheets
        if (drawn := _figures(sheet.key, findings, shots))
    }
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    script = Markup(get_plotlyjs()) if figures else ""
    return page.render(title=title, facts=facts, sheets=sheets, figures=figures, script=script)


def _figures(key: str, findings: Findings, shots: Mapping[str, Curve]) -> list[Any]:
    metric = findings.metric
    if key == "architectures":
        return [plots.groups_plot(findings.architectures, metric)]
    if key == "methods":
        return [plots.groups_plot(findings.methods, metric)]
    if key == "trends":
        # Ranks and rates first, since those are what people ask about.
        asked = sorted(findings.trends, key=lambda path: (not path.endswith(("rank", "learning_rate")), path))
        return [plots.response_plot(findings.trials, path, metric) for path in asked[:RESPONSES]]
    if key == "shots":
        return [plots.shots_plot(shots, "strict F1")]
    if key == "front":
        return [plots.front_plot(findings, name) for name in COSTS]
    if key == "importances":
        return [plots.importance_plot(findings.importances)]
    if key == "history":
        return [plots.history_plot(findings, against=axis) for axis in ("trials", "hours")]
    return []
