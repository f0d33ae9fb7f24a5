"""Comparison of two studies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clinie_core.errors import fail
from clinie_core.scoring.significance import Comparison
from search.analysis.comparisons import GroupComparison
from search.analysis.findings import Findings, compare_groups_of_studies, compare_trials
from search.config.description import describe_config
from search.report.section import ReportSection
from search.report.sections import describe_comparison

__all__ = ["StudyComparison", "compare_studies"]


@dataclass(frozen=True)
class StudyComparison:
    """Comparison of the best trials of two studies on the same documents, and of all their trials."""

    studies: tuple[str, str]
    scores: tuple[float, float]
    winners: Comparison | None
    searches: GroupComparison | None
    section: ReportSection

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return {
            "studies": list(self.studies),
            "scores": list(self.scores),
            "winners": asdict(self.winners) if self.winners else None,
            "searches": {**asdict(self.searches), "decided": self.searches.significant} if self.searches else None,
            "answer": self.section.answer,
        }


def compare_studies(first: Findings, second: Findings) -> StudyComparison:
    """Compare two studies.

    Raises:
        InputError: If a study has no finished trial, or the objectives differ.
    """
    if first.metric != second.metric:
        fail(
            "studies",
            f"the first has objective {first.metric}, the second {second.metric}",
            allowed="studies with the same objective",
        )
    for findings in (first, second):
        if findings.winner is None:
            fail("studies", f"study {findings.study!r} has no finished trial", allowed="studies with a finished trial")
    assert first.winner is not None
    assert second.winner is not None
    winners = compare_trials(first.winner, second.winner)
    searches = compare_groups_of_studies(first.complete_trials, second.complete_trials)
    names = (first.study, second.study)
    answer = (
        f"Best trials: {describe_comparison(winners, *names)}. Searches, by the expected best of"
        f" {searches.tries if searches else '-'} complete trials: {describe_comparison(searches, *names)}."
    )
    if winners is None:
        answer += " The studies were not scored on the same dev documents, or have no counts by document."
    rows = [
        (
            findings.study,
            f"{len(findings.complete_trials)} of {len(findings.trials)}",
            f"trial {findings.winner.record.number}",
            f"{findings.winner.score:.4f}",
            describe_config(findings.winner.record.config),
        )
        for findings in (first, second)
        if findings.winner is not None and findings.winner.record.config is not None
    ]
    columns = ("study", "complete of all trials", "best trial", f"dev {first.metric} (optimistic)", "configuration")
    section = ReportSection("comparison", "Which study found the better model?", answer, columns, rows)
    return StudyComparison(names, (first.winner.score, second.winner.score), winners, searches, section)
