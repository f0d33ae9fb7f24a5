"""Commands on studies: plan one, run one, go on with one, look at one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from search.cli.jobs import jobs_at, show_jobs
from search.cli.options import (
    DEFAULT_HOME,
    AllowText,
    AsJson,
    ClusterAddress,
    Command,
    HomeFolder,
    Overrides,
    SpaceName,
    StudyName,
    TrackingUri,
    console,
    home_of_study,
    print_json,
)

__all__ = ["COMMANDS"]


def spaces(as_json: AsJson = False) -> None:
    """List the spaces that come with clinie."""
    from search.config.space_file import read_space_file, shipped_spaces

    rows = []
    for name, file in shipped_spaces().items():
        content = read_space_file(str(file))[0]
        opening = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": name, "about": opening, "trials": content.budget.trials, "epochs": content.budget.epochs})
    if as_json:
        print_json({"spaces": rows})
        return
    for row in rows:
        console().print(
            f"[bold]{row['name']}[/bold]  {row['about']} ({row['trials']} trials of {row['epochs']} epochs)"
        )


def plan(
    space: SpaceName,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(help="Configurations to draw and show.", min=1, max=10_000)] = 5,
    as_json: AsJson = False,
) -> None:
    """Validate a space, count its configurations and show some with their size, without training."""
    import math

    from clinie_core.data.corpora.loading import load_corpora
    from clinie_core.data.schema import Schema
    from clinie_core.errors import InputError
    from search.config.domains import RandomChooser
    from search.config.search_space import SearchSpace
    from search.config.space_file import read_space_file

    file, where = read_space_file(space, overrides or ())
    searched = SearchSpace(file, where)
    drawn = [searched.suggest(RandomChooser(file.algorithm.seed + i)) for i in range(samples)]
    note = ""
    try:
        schema = Schema.from_documents(load_corpora(file.corpus, ("train",))["train"], file.view.descriptions)
    except InputError as error:
        types = tuple(f"type-{i}" for i in range(10))
        schema = Schema(concept_types=types, links=tuple((f"link-{i}", types[0], types[i]) for i in range(10)))
        note = f"corpus not read ({error.problems[0]}); sizes are for 10 types"
    from clinie_core.training.memory_estimate import estimate_memory

    together = file.resources.workers_per_trial
    sizes = [estimate_memory(config, schema, processes=together) for config in drawn]
    size = searched.size()
    if as_json:
        print_json(
            {
                "study": file.study,
                "dimensions": {path: str(domain) for path, domain in searched.dimensions()},
                "configurations": None if math.isinf(size) else int(size),
                "corpus": note or "read",
                "samples": [
                    {
                        "parameters": config.flattened(),
                        "total_parameters": s.parameters,
                        "trainable_parameters": s.trainable,
                        "memory_mb": round(s.memory_mb),
                    }
                    for config, s in zip(drawn, sizes, strict=True)
                ],
            }
        )
        return
    out = console()
    out.print(f"[bold]{file.study}[/bold]: {file.budget.trials} trials of at most {file.budget.epochs} epochs")
    for path, domain in searched.dimensions():
        out.print(f"  {path}: {domain}")
    out.print(f"configurations: {'without end (a range of real numbers)' if math.isinf(size) else f'{int(size):,}'}")
    if note:
        out.print(f"[yellow]note[/yellow] {note}", soft_wrap=True)
    from search.report.terminal import plan_table

    out.print(plan_table(drawn, sizes))


def search(
    space: SpaceName,
    overrides: Overrides = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Search a space: train and score configurations until the budget is spent.

    Ctrl-C stops cleanly; `clinie resume STUDY` then goes on where it stopped.
    """
    from search.config.space_file import read_space_file
    from search.storage.home import Home
    from search.study.study import Study

    file, where = read_space_file(space, overrides or ())
    file = file.with_absolute_paths()
    study = Study(file, where, Home(home.expanduser().resolve(), tracking_uri))
    Home.at(home, create=True)  # only now, so that wrong input leaves nothing behind
    _run(study, resume=False, as_json=as_json, allow_text=allow_text)


def transfer(
    space: SpaceName,
    overrides: Overrides = None,
    shots: Annotated[str, typer.Option(help="Numbers of documents of the corpus left out.")] = "0,5,10,20,50",
    seeds: Annotated[int, typer.Option(help="Runs, each with a seed of its own.", min=1)] = 1,
    split: Annotated[str, typer.Option(help="The split to score on: dev or test.")] = "dev",
    shot_epochs: Annotated[
        int | None, typer.Option(help="Epochs on the few documents; the space's budget.epochs if left out.", min=1)
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Leave each corpus of a space out in turn: train on the others, score on it, then with a few of its documents.

    What the space leaves open is drawn once. What was trained before is not trained again.
    """
    import dataclasses

    from clinie_core.errors import fail
    from search.config.space_file import read_space_file
    from search.report.terminal import transfer_table
    from search.storage.home import Home
    from search.study.transfer import run_transfer, summarize

    if not all(part.strip().isdigit() for part in shots.split(",")):
        fail("--shots", f"found {shots!r}", allowed="whole numbers with commas between them, for example 0,5,20")
    if split not in ("dev", "test"):
        fail("--split", f"found {split!r}", allowed="dev or test")
    file, where = read_space_file(space, overrides or ())
    results = run_transfer(
        file.with_absolute_paths(),
        where,
        Home(home.expanduser().resolve(), tracking_uri),
        shots=sorted({int(part) for part in shots.split(",")}),
        seeds=seeds,
        split=split,
        shot_epochs=shot_epochs,
        allow_text=allow_text,
    )
    rows = summarize(results)
    if as_json:
        results_json = [dataclasses.asdict(result) for result in results]
        print_json({"study": file.study, "rows": [dataclasses.asdict(row) for row in rows], "results": results_json})
        return
    console().print(transfer_table(rows))
    console().print(f"strict F1 on {split}; in brackets the {'range over seeds' if seeds > 1 else '95 % interval'}")


def resume(
    study: StudyName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Go on with a study that was interrupted; its trials go on from their last epoch.

    Sends what MLflow could not be told while its server was away.
    """
    from search.study.study import Study

    reopened = Study.open(home_of_study(home, study, tracking_uri), study)
    _run(reopened, resume=True, as_json=as_json, allow_text=allow_text)


def extend(
    study: StudyName,
    trials: Annotated[int, typer.Option(help="How many more trials.", min=1)],
    hours: Annotated[float | None, typer.Option(help="How long it may run from now; as before if left out.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Go on with a study beyond its budget, with all that it has learned."""
    from search.study.study import Study

    longer = Study.extend(home_of_study(home, study, tracking_uri), study, trials=trials, hours=hours)
    _run(longer, resume=True, as_json=as_json, allow_text=allow_text)


def repeat(
    study: StudyName,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="A trial's number.")],
    seed: Annotated[int | None, typer.Option(help="Another seed than the trial's.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Train one trial's configuration again, as a study of its own named STUDY-trial-TRIAL."""
    from clinie_core.errors import fail
    from search.config.space_file import SpaceFile
    from search.ledger.ledger import Ledger, open_storage
    from search.study.study import Study

    place = home_of_study(home, study, tracking_uri)
    ledger = Ledger.open(open_storage(place), study)
    config = next((r.config for r in ledger.records() if r.number == trial), None)
    if config is None:
        fail("trial", f"study {study!r} has no trial {trial}", allowed="a number that `clinie status` shows")
    name = f"{study}-trial-{trial}"
    if seed is not None:
        config, name = config.model_copy(update={"seed": seed}), f"{name}-seed-{seed}"
    attributes = ledger.attributes
    file = SpaceFile.model_validate(attributes["space"]).with_single_configuration(config, name)
    _run(Study(file, str(attributes["where"]), place), resume=False, as_json=as_json, allow_text=allow_text)


def _run(study: Any, *, resume: bool, as_json: bool, allow_text: bool) -> None:
    from rich.console import Console

    from search.report.terminal import trials_table
    from search.study.progress import Progress

    messages = Console(stderr=True, highlight=False)
    for warning in study.warnings:
        messages.print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    progress = Progress(messages, study.file.budget.trials, study.file.budget.hours)
    outcome = study.run(resume=resume, progress=progress, allow_text=allow_text)
    objective = study.file.objective[0]
    if as_json:
        print_json(outcome.as_json())
    else:
        title = f"study {outcome.study}, {objective.metric} on dev"
        console().print(
            trials_table(title, outcome.trials, objective.metric, maximized=objective.direction == "maximize")
        )
    if outcome.interrupted:
        messages.print(f"{len(outcome.interrupted)} trials interrupted; go on with: clinie resume {outcome.study}")
    if outcome.waiting:
        messages.print(
            f"[yellow]MLflow is away[/yellow] and {outcome.waiting} events wait for it in the home folder; once it is"
            f" back, send them with: clinie resume {outcome.study}",
            soft_wrap=True,
        )
    if outcome.stopped_by_user:
        raise typer.Exit(1)


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study; all of them if left out.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    address: ClusterAddress = None,
    as_json: AsJson = False,
) -> None:
    """Show the studies of a home folder, or the trials of one; with an address, the searches submitted to a cluster."""
    if address:
        show_jobs(jobs_at(address), study, as_json=as_json)
        return
    from search.ledger.ledger import Ledger, open_storage, study_names
    from search.report.terminal import trials_table
    from search.storage.home import Home
    from search.study.lock import is_running
    from search.study.study import current_records

    place = Home.at(home)
    if study is None:
        storage = open_storage(place)
        rows = [(name, Ledger.open(storage, name)) for name in study_names(place)]
        summary = [
            {
                "study": name,
                "running": is_running(place, name, storage),
                "trials": len(ledger.records()),
                "best": _best(ledger),
                "megabytes": place.used_megabytes(name),
            }
            for name, ledger in rows
        ]
        if as_json:
            print_json({"studies": summary})
        for row in summary if not as_json else ():
            state = "running" if row["running"] else "ended"
            words = f"{state}, {row['trials']} trials, best {row['best']}, {row['megabytes']:.0f} MB"
            console().print(f"[bold]{row['study']}[/bold]  {words}")
        return
    storage = open_storage(place)
    ledger = Ledger.open(storage, study)
    running = is_running(place, study, storage)
    trials = current_records(ledger, running=running)
    best = ledger.best()
    if as_json:
        print_json(
            {
                "study": study,
                "running": running,
                "trials": [record.as_json() for record in trials],
                "best": best.as_json() if best else None,
                "megabytes": place.used_megabytes(study),
            }
        )
        return
    title = f"study {study} ({'running' if running else 'not running'}, {place.used_megabytes(study):.0f} MB)"
    console().print(trials_table(title, trials, ledger.metrics[0], maximized=ledger.maximized))


def _best(ledger: Any) -> float | None:
    best = ledger.best()
    return round(best.metrics[ledger.metrics[0]], 4) if best else None


COMMANDS = tuple(Command(f, "Search") for f in (spaces, plan, search, resume, extend, repeat, status, transfer))
