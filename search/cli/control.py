"""Commands that control a running search: stop, pause, clone, add-budget. `resume` is in :mod:`search.cli.studies`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.jobs import connect_jobs
from search.cli.options import DEFAULT_HOME, AsJson, ClusterAddress, Command, HomeFolder, StudyName, console, print_json

if TYPE_CHECKING:
    from search.control.commands import CommandEntry
    from search.study.control import StudyControl

__all__ = ["COMMANDS", "CommandId", "OptionalTrial", "run_on_cluster", "send_command"]

TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.", min=0)]
OptionalTrial = Annotated[
    int | None, typer.Argument(metavar="[TRIAL]", help="Number of a trial. Default: the whole search.", min=0)
]
CommandId = Annotated[
    str | None,
    typer.Option("--id", help="Id of this command to a running search: a repetition with the same id has no effect."),
]


def stop(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a running study, or id of a job.")],
    trial: OptionalTrial = None,
    address: ClusterAddress = None,
    home: HomeFolder = DEFAULT_HOME,
    id_: CommandId = None,
    as_json: AsJson = False,
) -> None:
    """Stop one trial, or a whole search cleanly.

    A trial ends before its next training step, as `pruned` with its finished epochs. A search can be continued with
    `clinie resume`. With --address, stops a search that was submitted to that cluster.
    """
    if trial is not None:
        if address:
            run_on_cluster(address, study, ["stop", str(trial)], id_, as_json=as_json)
            return
        send_command(study, home, lambda control: control.stop(trial, id_=id_), as_json=as_json)
        return
    if address:
        console().print(f"requested stop of job {connect_jobs(address).stop(study)}")
        return
    from search.storage.home import Home
    from search.study.lock import request_stop

    console().print(f"requested stop of process {request_stop(Home.open(home), study)}")


def pause(
    study: StudyName,
    trial: OptionalTrial = None,
    address: ClusterAddress = None,
    home: HomeFolder = DEFAULT_HOME,
    id_: CommandId = None,
    as_json: AsJson = False,
) -> None:
    """Pause one trial, or a whole running search, before the next training step.

    The workers are free for other trials, and the nodes of a paused search are released. `clinie resume STUDY [TRIAL]`
    continues after the last finished epoch.
    """
    if address:
        run_on_cluster(address, study, ["pause", *_format_trial(trial)], id_, as_json=as_json)
        return
    send_command(study, home, lambda control: control.pause(trial, id_=id_), as_json=as_json)


def clone(
    study: StudyName,
    trial: TrialNumber,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY.PATH=VALUE...", help="Values that differ, such as batch_size=16.")
    ],
    address: ClusterAddress = None,
    home: HomeFolder = DEFAULT_HOME,
    id_: CommandId = None,
    as_json: AsJson = False,
) -> None:
    """Add a trial to a running search: the configuration of another trial with some changes.

    It starts next and is trained from the beginning. The budget grows by one trial.
    """
    from search.control.changes import parse_changes

    values = parse_changes(changes)
    if address:
        run_on_cluster(address, study, ["clone", str(trial), *changes], id_, as_json=as_json)
        return
    send_command(study, home, lambda control: control.clone(trial, values, id_=id_), as_json=as_json)


def add_budget(
    study: StudyName,
    trials: Annotated[int, typer.Option(help="Number of additional trials.", min=0)] = 0,
    hours: Annotated[float, typer.Option(help="Hours to add to its time limit.", min=0)] = 0.0,
    address: ClusterAddress = None,
    home: HomeFolder = DEFAULT_HOME,
    id_: CommandId = None,
    as_json: AsJson = False,
) -> None:
    """Add trials or hours to the budget of a running search.

    `clinie extend` does the same for a search that has ended.
    """
    if address:
        arguments = ["add-budget", "--trials", str(trials), "--hours", str(hours)]
        run_on_cluster(address, study, arguments, id_, as_json=as_json)
        return
    send_command(study, home, lambda control: control.add_budget(trials=trials, hours=hours, id_=id_), as_json=as_json)


def _format_trial(trial: int | None) -> list[str]:
    return [] if trial is None else [str(trial)]


def send_command(study: str, home: Path, send: Callable[[StudyControl], CommandEntry], *, as_json: bool) -> None:
    """Send a command to a search that uses the ledger of a home folder, and print the decision.

    Raises:
        typer.Exit: With 1 if the search has not answered.
    """
    from search.api import load_study

    entry = send(load_study(study, home=home).control)
    if as_json:
        print_json(entry.as_json())
    elif entry.decision is not None:
        console().print(f"{entry.command}: {entry.decision}", soft_wrap=True, markup=False)
    else:
        message = f"{entry.command}: the search has not answered; the command takes effect when it continues"
        console().print(message, soft_wrap=True, markup=False)
    if entry.decision is None:
        raise typer.Exit(1)


def run_on_cluster(address: str, study: str, arguments: Sequence[str], id_: str | None, *, as_json: bool) -> None:
    """Run a command as a job on the cluster where a search runs, and print its output.

    Args:
        address: URL of the cluster's Ray dashboard.
        study: Name of the study, or id of its job.
        arguments: Name and arguments of the command, without the study.
        id_: Id of the command.
        as_json: Whether to print JSON.

    Raises:
        typer.Exit: With the exit code of the command if it failed.
    """
    from search.cluster.submission import STUDY
    from search.control.commands import check_id, make_id

    name, *rest = arguments
    words = [name, STUDY, *rest, "--id", check_id(id_) if id_ else make_id(), *(["--json"] if as_json else [])]
    code, output = connect_jobs(address).run_command(study, words)
    sys.stdout.write(output)
    if code:
        raise typer.Exit(code)


COMMANDS = tuple(Command(f, "Search") for f in (stop, pause, clone, add_budget))
