"""The command that checks the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.options import DEFAULT_HOME, AsJson, Command, HomeFolder, TrackingUri, console, print_json

__all__ = ["COMMANDS"]

COLOURS = {"good": "green", "warning": "yellow", "bad": "red"}


def doctor(
    space: Annotated[
        str | None,
        typer.Argument(metavar="[SPACE]", help="Space whose resources are compared with the machine or the cluster."),
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Check package versions, open ports, Ray's token, disk, GPU, ledger and MLflow.

    With SPACE, also checks whether the space uses the available GPUs. Changes nothing. Exits with 1 if a finding is
    bad.
    """
    from rich.markup import escape

    from search.cluster.doctor import run_checks
    from search.config.space_reading import read_space_file
    from search.storage.home import Home

    resources = read_space_file(space)[0].resources if space else None
    findings = list(run_checks(Home(Path(home).expanduser().resolve(), tracking_uri), resources))
    if as_json:
        print_json({"findings": [finding.as_json() for finding in findings]})
    for finding in findings if not as_json else ():
        mark = f"[{COLOURS[finding.status]}]{finding.status:<8}[/]"
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        console().print(f"{mark} {finding.check:<24} {escape(finding.found + remedy)}", soft_wrap=True)
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(1)


def repair(home: HomeFolder = DEFAULT_HOME) -> None:
    """Repair the ledger of a home folder after lines of its file were damaged or lost.

    Keeps the damaged file as ledger.journal.damaged-1. No search may be running.
    """
    from clinie_core.errors import fail
    from search.ledger.journal_repair import repair_journal
    from search.storage.home import Home
    from search.study.lock import find_running_studies

    place = Home.open(home)
    if not place.ledger_file.is_file():
        fail("--home", f"no ledger {place.ledger_file}", allowed="a home folder with a ledger.journal file")
    running = find_running_studies(place)
    if running:
        fail("--home", f"a search of {running[0]!r} is running", remedy=f"stop it: clinie stop {running[0]}")
    repaired = repair_journal(place.ledger_file)
    for fault in repaired.faults:
        console().print(str(fault), soft_wrap=True, markup=False)
    if repaired.backup is None:
        console().print("the ledger has no faults")
        return
    console().print(f"repaired; the damaged file is {repaired.backup}", soft_wrap=True, markup=False)
    console().print("A trial may lack what the damaged lines held. To continue its study: clinie resume STUDY")


COMMANDS: tuple[Any, ...] = tuple(Command(function, "Search") for function in (doctor, repair))
