"""Two studies side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clinie_core.errors import fail
from clinie_core.scoring.significance import Comparison
from search.analysis.comparisons import GroupComparison
from search.analysis.findings import Findings, compare_groups_of_studies, compare_trials
from search.config.description import describe_config
from search.report.sections import ReportSection, verdict

__all__ = ["StudyComparison", "compare_studies"]


@dataclass(frozen=True)
class StudyComparison:
    """The winners of two studies on the same documents, and the studies as a whole."""

    studies: tuple[str, str]
    scores: tuple[float, float]
    winners: Comparison | None
    searches: GroupComparison | None
    sheet: ReportSection

    def as_json(self) -> dict[str, Any]:
        """The comparison for ``--json``."""
        return {
            "studies": list(self.studies),
            "scores": list(self.scores),
            "winners": asdict(self.winners) if self.winners else None,
            "searches": {**asdict(self.searches), "decided": self.searches.significant} if self.searches else None,
            "answer": self.sheet.answer,
        }


def compare_studies(first: Findings, second: Findings) -> StudyComparison:
    """Compare two studies.

    Raises:
        InputError: If one has no finished trial, or they were judged by different metrics.
    """
    if first.metric != second.metric:
        fail(
            "studies",
            f"one is judged by {first.metric}, the other by {second.metric}",
            allowed="studies of one objective",
        )
    for findings in (first, second):
        if findings.winner is None:
            fail("studies", f"study {findings.study!r} has no finished trial", allowed="studies with one")
    assert first.winner is not None
    assert second.winner is not None
    winners = compare_trials(first.winner, second.winner)
    searches = compare_groups_of_studies(first.trials, second.trials)
    names = (first.study, second.study)
    answer = (
        f"Winners: {verdict(winners, *names)}. Searches, by the expected best of"
        f" {searches.tries if searches else '-'} trials: {verdict(searches, *names)}."
    )
    if winners is None:
        answer += " The studies were not scored on the same dev documents, or kept no counts."
    rows = [
        (
            findings.study,
            str(len(findings.trials)),
            f"trial {findings.winner.record.number}",
            f"{findings.winner.score:.4f}",
            describe_config(findings.winner.record.config),
        )
        for findings in (first, second)
        if findings.winner is not None and findings.winner.record.config is not None
    ]
    columns = ("study", "trials", "winner", f"dev {first.metric} (optimistic)", "configuration")
    sheet = ReportSection("comparison", "Which study found the better model?", answer, columns, rows)
    return StudyComparison(names, (first.winner.score, second.winner.score), winners, searches, sheet)
