"""The command `watch`, which displays a running search of another process."""

from __future__ import annotations

import sys

import typer

from search.cli.jobs import connect_jobs
from search.cli.options import DEFAULT_HOME, ClusterAddress, Command, HomeFolder, StudyName, console

__all__ = ["COMMANDS"]


def watch(study: StudyName, home: HomeFolder = DEFAULT_HOME, address: ClusterAddress = None) -> None:
    """Display a running search until it ends; Ctrl-C ends the display only.

    A terminal shows a line per running trial: its learning curve, the next rung with the score that it needs there,
    memory and remaining time. Other outputs get a line per finished trial. The search may run on any machine that uses
    the ledger of this home folder. With --address, prints the output of a search that was submitted to that cluster.
    """
    if address:
        for piece in connect_jobs(address).stream_logs(study):
            sys.stdout.write(piece)
            sys.stdout.flush()
        return
    from search.api import load_study

    try:
        outcome = load_study(study, home=home).follow(console())
    except KeyboardInterrupt:
        console().print("the search continues; show it again with: clinie watch " + study, markup=False)
        raise typer.Exit from None
    console().print(f"the search has ended: {outcome}", markup=False)


COMMANDS = (Command(watch, "Search"),)
