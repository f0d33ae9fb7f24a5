"""Commands that answer questions: what won, by how much, and how two studies compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    StudyName,
    TrackingUri,
    console,
    print_json,
)

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
    from search.api import load_study
    from search.report.terminal import print_sections

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    built = loaded.report(output)
    if as_json:
        print_json(built.as_json())
    elif output is not None:
        console().print(f"report in {output}", soft_wrap=True)
    else:
        print_sections(console(), built.facts, built.sheets)


def best(
    study: StudyName, home: HomeFolder = DEFAULT_HOME, tracking_uri: TrackingUri = None, as_json: AsJson = False
) -> None:
    """Show a study's best trial: its score with its interval, its configuration, the command that repeats it."""
    from clinie_core.errors import fail
    from search.api import load_study
    from search.report.terminal import print_sections

    built = load_study(study, home=home, tracking_uri=tracking_uri).report()
    winner = built.findings.winner
    if winner is None:
        fail("study", f"study {study!r} has no finished trial", allowed="a study with one")
    if as_json:
        low, high = built.findings.interval or (None, None)
        print_json({"study": study, **winner.record.as_json(), "interval": [low, high]})
        return
    print_sections(console(), built.facts, built.sheets[:1])
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
    from search.api import load_study
    from search.report.terminal import print_sections

    studies = [load_study(name, home=home, tracking_uri=tracking_uri) for name in (first, second)]
    comparison = studies[0].compare(studies[1])
    if as_json:
        print_json(comparison.as_json())
        return
    print_sections(console(), f"{first} against {second}", [comparison.sheet])


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Search") for f in (report, best, compare))
