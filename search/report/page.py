"""A study's report as one self-contained HTML page, including its figures and their library."""

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
from search.report.section import ReportSection
from search.report.sections import Curve

__all__ = ["render_page"]

TEMPLATE = Path(__file__).with_name("page.html")
NUMBER = re.compile(r"[-+]?[\d,.]+( %)?$")
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
    environment.tests["number_like"] = lambda cell: bool(NUMBER.match(str(cell)))
    figures = {
        section.key: [Markup(figure.to_html(full_html=False, include_plotlyjs=False)) for figure in drawn]
        for section in sections
        if (drawn := _build_figures(section.key, findings, shots))
    }
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    script = Markup(get_plotlyjs()) if figures else ""
    return page.render(title=title, facts=facts, sections=sections, figures=figures, script=script)


def _build_figures(key: str, findings: Findings, shots: Mapping[str, Curve]) -> list[Any]:
    metric = findings.metric
    if key == "architectures":
        return [plots.plot_groups(findings.architectures, metric)]
    if key == "methods":
        return [plots.plot_groups(findings.methods, metric)]
    if key == "trends":
        # Ranks and learning rates come first because users ask about them most.
        paths = sorted(findings.trends, key=lambda path: (not path.endswith(("rank", "learning_rate")), path))
        return [plots.plot_response(findings.complete_trials, path, metric) for path in paths[:RESPONSES]]
    if key == "shots":
        return [plots.plot_shots(shots, "strict F1")]
    if key == "front":
        return [plots.plot_front(findings, name) for name in COSTS]
    if key == "importances":
        return [plots.plot_importances(findings.importances)]
    if key == "curves":
        return [plots.plot_curves(findings)]
    if key == "history":
        return [plots.plot_history(findings, against=axis) for axis in ("trials", "hours")]
    return []
