"""Commands that report on a study and compare two studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    Overwrite,
    StudyName,
    TrackingUri,
    Wide,
    console,
    print_json,
)

__all__ = ["COMMANDS"]


def report(
    study: StudyName,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write the report to.")] = None,
    format_: Annotated[
        Literal["html", "md", "json"] | None,
        typer.Option("--format", help="Format of the report. Default: that of the file's suffix, else html."),
    ] = None,
    overwrite: Overwrite = False,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Report on a study: best configuration, comparison of architectures and methods, cost.

    With --output the report is a file, which is also stored with the study in MLflow. With --format alone, it is
    printed in that format.
    """
    from clinie_core.output_files import check_output_files
    from search.api import load_study
    from search.report.study_report import choose_format, render_report
    from search.report.terminal import print_sections

    chosen = format_ or choose_format(output)
    if output is not None:
        check_output_files(output, overwrite=overwrite)
    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    built = loaded.report(output, format=chosen)
    if as_json:
        print_json(built.as_json())
    elif output is not None:
        console().print(f"report in {output}", soft_wrap=True)
    elif format_ is not None:
        sys.stdout.write(render_report(built, format_))
    else:
        print_sections(console(), built.facts, built.sections, wide=wide)


def best(
    study: StudyName, home: HomeFolder = DEFAULT_HOME, tracking_uri: TrackingUri = None, as_json: AsJson = False
) -> None:
    """Show a study's best trial: score with interval, configuration and checkpoint."""
    from clinie_core.errors import fail
    from search.api import load_study

    found = load_study(study, home=home, tracking_uri=tracking_uri).read_best()
    if found is None:
        found_none = f"study {study!r} has no complete trial that satisfies its limits"
        fail("study", found_none, allowed="a complete trial within the limits")
    if as_json:
        print_json(found.as_json())
        return
    lines = found.describe()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console().print(f"{name.ljust(width)}  {value}", soft_wrap=True, markup=False)


def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study.")],
    second: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name of another study, scored on the same dev documents.")
    ],
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    wide: Wide = False,
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
    print_sections(console(), [f"{first} against {second}"], [comparison.section], wide=wide)


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Search") for f in (report, best, compare))
