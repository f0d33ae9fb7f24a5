"""Commands that report on a study and compare two studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    Overwrite,
    StudyName,
    TrackingUri,
    console,
    print_json,
)

__all__ = ["COMMANDS"]


def report(
    study: StudyName,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file to write the report to.")] = None,
    overwrite: Overwrite = False,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Report on a study: best configuration, comparison of architectures and methods, cost.

    With --output the report is an HTML page, which is also stored with the study in MLflow.
    """
    from clinie_core.output_files import check_output_files
    from search.api import load_study
    from search.report.terminal import print_sections

    if output is not None:
        check_output_files(output, overwrite=overwrite)
    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    built = loaded.report(output)
    if as_json:
        print_json(built.as_json())
    elif output is not None:
        console().print(f"report in {output}", soft_wrap=True)
    else:
        print_sections(console(), built.facts, built.sections)


def best(
    study: StudyName, home: HomeFolder = DEFAULT_HOME, tracking_uri: TrackingUri = None, as_json: AsJson = False
) -> None:
    """Show a study's best trial: score with interval, configuration and checkpoint."""
    from clinie_core.errors import fail
    from search.api import load_study
    from search.report.terminal import print_sections

    built = load_study(study, home=home, tracking_uri=tracking_uri).report()
    winner = built.findings.winner
    if winner is None:
        fail("study", f"study {study!r}: {built.sections[0].answer}", allowed="a complete trial within the limits")
    if as_json:
        low, high = built.findings.interval or (None, None)
        print_json({"study": study, **winner.record.as_json(), "interval": [low, high]})
        return
    print_sections(console(), built.facts, built.sections[:1])
    console().print(f"checkpoint  {winner.record.checkpoint}", soft_wrap=True)
    console().print(f"repeat      clinie repeat {study} {winner.record.number}")


def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study.")],
    second: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name of another study, scored on the same dev documents.")
    ],
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Compare the best trials of two studies, and the two searches at equal numbers of trials."""
    from search.api import load_study
    from search.report.terminal import print_sections

    studies = [load_study(name, home=home, tracking_uri=tracking_uri) for name in (first, second)]
    comparison = studies[0].compare(studies[1])
    if as_json:
        print_json(comparison.as_json())
        return
    print_sections(console(), f"{first} against {second}", [comparison.section])


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Search") for f in (report, best, compare))
