"""Commands on the registry: promote a trial, look at a model's history, take a promotion back, copy a model."""

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
    from search.promotion.promotion import Promotion

__all__ = ["COMMANDS"]

RegisteredName = Annotated[str, typer.Argument(metavar="NAME", help="A registered model's name.")]


def promote(
    study: StudyName,
    name: Annotated[str, typer.Option("--name", help="The registered model's name.")],
    trial: Annotated[int | None, typer.Option(help="A trial's number; the best one if left out.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A YAML file of rules; those that come with clinie if left out.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one set of weights of backbone and adapter; loads offline.")
    ] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help="Leave the backbone out, and name it by commit and sha256 of its weights.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and change nothing but the record.")] = False,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Judge a study's best trial on the test split and make it NAME@champion if it keeps every rule of the policy.

    Every read of the test split is recorded, that of a dry run too, and raises the bar for the next one. Exits
    with 1 if the model is refused.
    """
    from clinie_core.data.corpora.loading import load_corpora
    from clinie_core.errors import fail
    from search.config.space_file import SpaceFile
    from search.ledger.ledger import Ledger, open_storage
    from search.promotion.policy import read_policy
    from search.promotion.promotion import Candidate
    from search.promotion.promotion import promote as promote_candidate
    from search.tracking.connection import connect

    if merge and pin:
        fail("--merge", "together with --pin", allowed="one of them; neither carries the backbone beside the adapter")
    rules = read_policy(policy)
    place = home_of_study(home, study, tracking_uri)
    ledger = Ledger.open(open_storage(place), study)
    record = ledger.best() if trial is None else next((r for r in ledger.records() if r.number == trial), None)
    if record is None or record.config is None:
        found = f"study {study!r} has no finished trial" if trial is None else f"study {study!r} has no trial {trial}"
        fail("study", found, allowed="a finished trial")
    if record.checkpoint is None:
        kept = "one of the best trials (the study's budget.checkpoints says how many keep their weights)"
        remedy = f"train it again: clinie repeat {study} {record.number}"
        fail(f"trial {record.number}", "its weights are not kept", allowed=kept, remedy=remedy)
    attributes = ledger.attributes
    file = SpaceFile.model_validate(attributes["space"])
    corpus = load_corpora(file.corpus, ("dev", "test"))
    candidate = Candidate(
        study=study,
        trial=record.number,
        config_digest=record.config.digest(),
        checkpoint=record.checkpoint,
        corpus=file.corpus_title,
        corpus_digest=str(attributes["corpus_digest"]),
        space_digest=file.digest(),
        test_digest=corpus.digest("test"),
        base="merged" if merge else "pinned" if pin else "whole",
    )
    promotion = promote_candidate(
        connect(place),
        candidate,
        record,
        corpus,
        name=name,
        policy=rules,
        parent_run=str(attributes["parent_run"]),
        dry_run=dry_run,
    )
    if as_json:
        print_json(promotion.as_json())
    else:
        _show(promotion, candidate.trial, study, dry_run=dry_run)
    if not promotion.decision.promote:
        raise typer.Exit(1)


def _show(promotion: Promotion, trial: int, study: str, *, dry_run: bool) -> None:
    out, decision = console(), promotion.decision
    if promotion.already:
        out.print(f"[bold]{promotion.name}[/bold] version {promotion.version} is @champion already; nothing was read")
    elif promotion.promoted:
        out.print(f"[bold]{promotion.name}[/bold] version {promotion.version} is @champion: trial {trial} of {study}")
    elif dry_run:
        verdict = "would become champion" if decision.promote else "would be refused"
        out.print(f"trial {trial} of {study} {verdict} as [bold]{promotion.name}[/bold]; nothing was registered")
    else:
        out.print(
            f"[bold]{promotion.name}[/bold] version {promotion.version} is refused and stays @challenger: trial"
            f" {trial} of {study}"
        )
    low, high = decision.interval
    out.print(f"  dev strict F1  {promotion.dev['strict_f1']:.4f} (chosen on dev, so optimistic)")
    out.print(
        f"  test strict F1 {decision.test['strict_f1']:.4f} (95 % interval {low:.4f} to {high:.4f}), lenient"
        f" {decision.test['lenient_f1']:.4f}; read no. {decision.read} of this test split"
    )
    for check in decision.checks:
        out.print(
            f"  {'[green]kept[/green]   ' if check.passed else '[red]refused[/red]'} {check.rule}: {check.detail}"
        )


def history(
    name: RegisteredName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that happened to a registered model, and whether its record holds together.

    Exits with 1 if an entry was changed, taken away or put in between.
    """
    from dataclasses import asdict

    from clinie_core.errors import fail
    from search.promotion.history import History
    from search.storage.home import Home
    from search.tracking.connection import connect

    record = History(connect(Home.open(home, tracking_uri)), name)
    entries, faults = record.entries(), record.faults()
    faults += [f"version {version} was registered by something else" for version in record.unrecorded_versions()]
    if not entries and not faults:
        fail(
            "NAME", f"no model {name!r} in the registry, or nothing happened to it", allowed="a model that was promoted"
        )
    if as_json:
        print_json({"name": name, "entries": [asdict(e) for e in entries], "faults": faults})
    else:
        out = console()
        for entry in entries:
            words = ", ".join(f"{k} {v}" for k, v in entry.content.items() if isinstance(v, (str, int)))
            if entry.kind == "decision":
                decided = entry.content["decision"]
                words += f", test strict F1 {decided['test']['strict_f1']:.4f}, promote {decided['promote']}"
            out.print(f"{entry.number:>3}  {entry.at}  [bold]{entry.kind:<11}[/bold] {words}", soft_wrap=True)
        for fault in faults:
            out.print(f"[red]fault[/red] {fault}", soft_wrap=True)
        out.print("the record does not hold" if faults else "the record holds")
    if faults:
        raise typer.Exit(1)


def rollback(
    name: RegisteredName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Make the champion before the present one champion again."""
    from search.promotion.promotion import rollback as roll_back
    from search.storage.home import Home
    from search.tracking.connection import connect

    before, now = roll_back(connect(Home.open(home, tracking_uri)), name)
    if as_json:
        print_json({"name": name, "from": before, "version": now})
        return
    console().print(f"[bold]{name}[/bold] version {now} is @champion again; it was version {before}")


def copy(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@champion or NAME/VERSION.")],
    to: Annotated[str, typer.Option("--to", help="URL of the MLflow that it goes to.")],
    name: Annotated[str | None, typer.Option(help="What it is called there; the same if left out.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Copy a registered model to another registry and make it champion there, as from development to production."""
    from search.promotion.copying import copy_model
    from search.storage.home import Home

    title = name or model.replace("/", "@").partition("@")[0]
    source = Home.open(home, tracking_uri)
    version = copy_model(source, Home(source.root, to), model, title)
    if as_json:
        print_json({"model": model, "name": title, "version": version})
        return
    console().print(f"[bold]{title}[/bold] version {version} is @champion there")


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Models") for f in (promote, history, rollback, copy))
