"""Commands on studies: plan one, run one, go on with one, look at one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.jobs import connect_jobs, show_jobs
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
    print_json,
)

if TYPE_CHECKING:
    from search.api import Study

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
    from search.config.validation import validate_space
    from search.study.plan import plan_search

    planned = plan_search(validate_space(space, overrides or (), require_corpus=False), samples)
    file = planned.file
    if as_json:
        print_json(planned.as_json())
        return
    out = console()
    out.print(f"[bold]{file.study}[/bold]: {file.budget.trials} trials of at most {file.budget.epochs} epochs")
    for path, domain in planned.dimensions.items():
        out.print(f"  {path}: {domain}")
    count = planned.configurations
    out.print(f"configurations: {'without end (a range of real numbers)' if count is None else f'{count:,}'}")
    if planned.note:
        out.print(f"[yellow]note[/yellow] {planned.note}", soft_wrap=True)
    from search.report.terminal import plan_table

    out.print(plan_table(planned.samples, planned.sizes))


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
    from search.api import run

    study = run(space, overrides or (), home=home, tracking_uri=tracking_uri, allow_text=allow_text, show_progress=True)
    _show_outcome(study, as_json=as_json)


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
    from search.api import load_study

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    _show_outcome(loaded.resume(allow_text=allow_text, show_progress=True), as_json=as_json)


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
    from search.api import load_study

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    extended = loaded.extend(trials, hours=hours, allow_text=allow_text, show_progress=True)
    _show_outcome(extended, as_json=as_json)


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
    from search.api import load_study

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    repeated = loaded.repeat_trial(trial, seed=seed, allow_text=allow_text, show_progress=True)
    _show_outcome(repeated, as_json=as_json)


def _show_outcome(study: Study, *, as_json: bool) -> None:
    """Print the trials of a search that has ended, and what to do next.

    Raises:
        typer.Exit: With 1 if a signal stopped the search.
    """
    from rich.console import Console

    from search.report.terminal import trials_table

    messages, outcome = Console(stderr=True, highlight=False), study.outcome
    assert outcome is not None, "the study was just run"
    if as_json:
        print_json(outcome.as_json())
    else:
        title = f"study {study.name}, {study.metric} on dev"
        console().print(trials_table(title, outcome.trials, study.metric, maximized=study.is_maximized))
    if outcome.interrupted:
        messages.print(f"{len(outcome.interrupted)} trials interrupted; continue with: clinie resume {outcome.study}")
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
        show_jobs(connect_jobs(address), study, as_json=as_json)
        return
    from search.api import list_studies, load_study

    if study is not None:
        _show_study(load_study(study, home=home), as_json=as_json)
        return
    summary = [_summarize(load_study(name, home=home)) for name in list_studies(home)]
    if as_json:
        print_json({"studies": summary})
        return
    for row in summary:
        state = "running" if row["running"] else "ended"
        words = f"{state}, {row['trials']} trials, best {row['best']}, {row['megabytes']:.0f} MB"
        console().print(f"[bold]{row['study']}[/bold]  {words}")


def _show_study(study: Study, *, as_json: bool) -> None:
    from search.report.terminal import trials_table

    running, trials, best, megabytes = study.is_running, study.records, study.best, study.disk_usage_mb
    if as_json:
        print_json(
            {
                "study": study.name,
                "running": running,
                "trials": [record.as_json() for record in trials],
                "best": best.as_json() if best else None,
                "megabytes": megabytes,
            }
        )
        return
    title = f"study {study.name} ({'running' if running else 'not running'}, {megabytes:.0f} MB)"
    console().print(trials_table(title, trials, study.metric, maximized=study.is_maximized))


def _summarize(study: Study) -> dict[str, Any]:
    best = study.best
    return {
        "study": study.name,
        "running": study.is_running,
        "trials": len(study.records),
        "best": round(best.metrics[study.metric], 4) if best else None,
        "megabytes": study.disk_usage_mb,
    }


COMMANDS = tuple(Command(f, "Search") for f in (spaces, plan, search, resume, extend, repeat, status, transfer))
