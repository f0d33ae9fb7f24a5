"""Commands on the model registry: promote a trial, show a model's history, roll back, copy a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    Ids,
    StudyName,
    TrackingUri,
    console,
    print_json,
)

if TYPE_CHECKING:
    from search.promotion.candidate import Promotion

__all__ = ["COMMANDS"]

RegisteredName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")]


def promote(
    study: StudyName,
    name: Annotated[str, typer.Option("--name", help="Name of the registered model.")],
    trial: Annotated[int | None, typer.Option(help="Number of the trial; the best trial by default.")] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML file of the promotion policy; the policy that comes with clinie by default."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge backbone and adapter into one set of weights; loads offline.")
    ] = False,
    pin: Annotated[
        bool,
        typer.Option("--pin", help="Leave the backbone out and record its commit and the sha256 of its weights."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide without registering; the read of the test split is recorded.")
    ] = False,
    accept_fault: Annotated[
        str | None,
        typer.Option(
            "--accept-fault", metavar="REASON", help="Promote although the history is damaged, and record why."
        ),
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Judge a study's best trial on the test split and make it NAME@champion if it passes the promotion policy.

    Each read of the test split is recorded, including those of dry runs, and makes the next promotion harder. The
    exit status is 1 if the policy refuses the model.
    """
    from clinie_core.errors import fail
    from search.api import load_study
    from search.promotion.model_names import check_model_name

    check_model_name(name, "--name")
    if accept_fault is not None and not accept_fault.strip():
        fail("--accept-fault", "the reason is empty", allowed="a sentence that the history records")
    if merge and pin:
        fail("--merge", "found together with --pin", allowed="one of --merge and --pin")
    promotion = load_study(study, home=home, tracking_uri=tracking_uri).promote(
        name,
        trial=trial,
        policy=policy,
        base="merged" if merge else "pinned" if pin else "whole",
        dry_run=dry_run,
        accept_fault=accept_fault,
    )
    if as_json:
        print_json(promotion.as_json())
    else:
        _print_promotion(promotion, dry_run=dry_run)
    if not promotion.decision.promote:
        raise typer.Exit(1)


def _print_promotion(promotion: Promotion, *, dry_run: bool) -> None:
    out, decision = console(), promotion.decision
    model = f"[bold]{promotion.name}[/bold] version {promotion.version}"
    trial = f"trial {promotion.candidate.trial} of {promotion.candidate.study}"
    if promotion.already:
        out.print(f"{model} is @champion already; the test split was not read")
    elif promotion.promoted:
        out.print(f"{model} is @champion: {trial}")
    elif dry_run:
        verdict = "would become champion" if decision.promote else "would be refused"
        out.print(f"{trial} {verdict} as [bold]{promotion.name}[/bold]; no version was registered")
    else:
        out.print(f"{model} is refused and remains @challenger: {trial}")
    low, high = decision.interval
    out.print(f"  dev strict F1  {promotion.dev['strict_f1']:.4f} (optimistic: the trial was selected on dev)")
    out.print(
        f"  test strict F1 {decision.test['strict_f1']:.4f} (95 % interval {low:.4f} to {high:.4f}), lenient"
        f" {decision.test['lenient_f1']:.4f}; read {decision.read} of this test split"
    )
    for check in decision.checks:
        out.print(f"  {'[green]passed[/green]' if check.passed else '[red]failed[/red]'} {check.rule}: {check.detail}")


def history(
    name: RegisteredName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Show the history of a registered model and verify it.

    The exit status is 1 if an entry was changed, deleted or inserted.
    """
    from dataclasses import asdict

    from clinie_core.errors import fail
    from search.promotion.history import History
    from search.promotion.model_names import check_model_name
    from search.storage.home import Home
    from search.tracking.connection import connect

    check_model_name(name, "NAME")
    record = History(connect(Home.open_registry(home, tracking_uri)), name)
    entries, faults = record.read_entries(), record.find_faults()
    faults += [f"version {version} was not registered by clinie" for version in record.find_unrecorded_versions()]
    if not entries and not faults:
        fail("NAME", f"no model {name!r} with a history in the registry", allowed="a model that was promoted")
    if as_json:
        print_json({"name": name, "entries": [asdict(e) for e in entries], "faults": faults})
    else:
        out = console()
        for entry in entries:
            details = ", ".join(f"{k} {v}" for k, v in entry.content.items() if isinstance(v, (str, int)))
            if entry.kind == "decision":
                decided = entry.content["decision"]
                details += f", test strict F1 {decided['test']['strict_f1']:.4f}, promote {decided['promote']}"
            out.print(f"{entry.number:>3}  {entry.at}  [bold]{entry.kind:<11}[/bold] {details}", soft_wrap=True)
        for fault in faults:
            out.print(f"[red]fault[/red] {fault}", soft_wrap=True)
        out.print("the history is damaged" if faults else "the history is intact")
    if faults:
        raise typer.Exit(1)


def rollback(
    name: RegisteredName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion of a registered model its champion again."""
    from search.promotion.model_names import check_model_name
    from search.promotion.promotion import roll_back
    from search.storage.home import Home
    from search.tracking.connection import connect

    check_model_name(name, "NAME")
    before, now = roll_back(connect(Home.open_registry(home, tracking_uri)), name)
    if as_json:
        print_json({"name": name, "from": before, "version": now})
        return
    console().print(f"[bold]{name}[/bold] version {now} is @champion again, instead of version {before}")


def copy(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@champion or NAME/VERSION.")],
    to: Annotated[str, typer.Option("--to", help="URL of the target's MLflow server or database.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in the target; the same name by default.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Copy a registered model to another registry and make it champion there, for example in production."""
    from search.promotion.copying import copy_model, open_target
    from search.promotion.model_names import parse_model_reference
    from search.storage.home import Home

    title = name or parse_model_reference(model, "MODEL").name
    source = Home.open(home, tracking_uri)
    version = copy_model(source, open_target(source, to), model, title)
    if as_json:
        print_json({"model": model, "name": title, "version": version})
        return
    console().print(f"[bold]{title}[/bold] version {version} is @champion in the target registry")


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Models") for f in (promote, history, rollback, copy))
