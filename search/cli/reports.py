"""Commands that answer questions: what won, by how much, and how two studies compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    StudyName,
    TrackingUri,
    console,
    home_of_study,
    print_json,
)

if TYPE_CHECKING:
    from search.report.study_report import StudyReport

__all__ = ["COMMANDS"]


def report(
    study: StudyName,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write one page of HTML that opens offline.")
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Answer what a study was for: what won and by how much, encoder or decoder, which method, at what cost.

    The page is also kept with the study in MLflow.
    """
    from search.report.page import render_page
    from search.report.terminal import print_sections
    from search.tracking.connection import connect, log_report

    gathered = _gathered(study, home, tracking_uri)
    if output is not None:
        title = f"Report on {study}"
        page = render_page(title, gathered.facts, gathered.sheets, gathered.findings, gathered.shots)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
        if gathered.parent_run:
            log_report(connect(home_of_study(home, study, tracking_uri)), gathered.parent_run, output)
    if as_json:
        print_json(gathered.as_json())
    elif output is not None:
        console().print(f"report in {output}", soft_wrap=True)
    else:
        print_sections(console(), gathered.facts, gathered.sheets)


def best(
    study: StudyName, home: HomeFolder = DEFAULT_HOME, tracking_uri: TrackingUri = None, as_json: AsJson = False
) -> None:
    """Show a study's best trial: its score with its interval, its configuration, the command that repeats it."""
    from clinie_core.errors import fail
    from search.report.terminal import print_sections

    gathered = _gathered(study, home, tracking_uri)
    winner = gathered.findings.winner
    if winner is None:
        fail("study", f"study {study!r} has no finished trial", allowed="a study with one")
    if as_json:
        low, high = gathered.findings.interval or (None, None)
        print_json({"study": study, **winner.record.as_json(), "interval": [low, high]})
        return
    print_sections(console(), gathered.facts, gathered.sheets[:1])
    console().print(f"checkpoint  {winner.record.checkpoint}", soft_wrap=True)
    console().print(f"again       clinie repeat {study} {winner.record.number}")


def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="A study.")],
    second: Annotated[str, typer.Argument(metavar="STUDY", help="Another study, on the same dev documents.")],
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Compare two studies: their winners document by document, and what each finds in as many trials."""
    from search.report.comparison import compare_studies
    from search.report.terminal import print_sections

    reports = [_gathered(name, home, tracking_uri) for name in (first, second)]
    comparison = compare_studies(*(gathered.findings for gathered in reports))
    if as_json:
        print_json(comparison.as_json())
        return
    print_sections(console(), f"{first} against {second}", [comparison.sheet])


def _gathered(study: str, home: Path, tracking_uri: str | None) -> StudyReport:
    from search.report.study_report import build_study_report

    return build_study_report(home_of_study(home, study, tracking_uri), study)


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Search") for f in (report, best, compare))
