"""Commands that plan, run, resume and show studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.control import CommandId, OptionalTrial, run_on_cluster, send_command
from search.cli.init import init
from search.cli.jobs import connect_jobs, show_jobs
from search.cli.options import (
    DEFAULT_HOME,
    AllowText,
    AsJson,
    ClusterAddress,
    Command,
    HomeFolder,
    Ids,
    Overrides,
    Quiet,
    SpaceName,
    StudyName,
    TrackingUri,
    Wide,
    console,
    print_json,
)

if TYPE_CHECKING:
    from search.api import Study

__all__ = ["COMMANDS"]


def spaces(as_json: AsJson = False) -> None:
    """List the spaces that come with clinie."""
    from search.config.space_reading import find_shipped_spaces, read_space_file

    rows = []
    for name, file in find_shipped_spaces().items():
        content = read_space_file(str(file))[0]
        summary = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": name, "about": summary, "trials": content.budget.trials, "epochs": content.budget.epochs})
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
    samples: Annotated[int, typer.Option(help="Number of configurations to draw.", min=1, max=10_000)] = 5,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="Simulate a training step of each configuration for its peak memory.",
        ),
    ] = False,
    wide: Wide = False,
    address: Annotated[
        str | None,
        typer.Option("--address", help="URL of a cluster's Ray dashboard; rejects a space that it cannot hold."),
    ] = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Validate a space and show the sizes of its trials and some of its configurations, without training."""
    from rich.markup import escape

    from search.config.validation import validate_space
    from search.study.plan import plan_search

    validated = validate_space(space, overrides or (), plan_only=True)
    cluster = None
    if address is not None:
        from search.cluster.remote_capacity import fetch_capacity

        cluster = fetch_capacity(address)
    planned = plan_search(validated, samples, simulate=simulate, cluster=cluster)
    file = planned.file
    if as_json:
        print_json(planned.as_json())
        return
    out = console()
    out.print(f"[bold]{file.study}[/bold]: {file.budget.trials} trials of at most {file.budget.epochs} epochs")
    for path, domain in planned.dimensions.items():
        out.print(f"  {path}: {domain}")
    if planned.sampler:
        out.print(f"sampler auto: {planned.sampler}", soft_wrap=True, markup=False)
    count = planned.configurations
    out.print(
        f"configurations: {'infinite (a dimension is a range of real numbers)' if count is None else f'{count:,}'}"
    )
    for name, detection in planned.detections.items():
        out.print(f"corpus {name}: {detection}", soft_wrap=True, markup=False)
    if planned.note:
        out.print(f"[yellow]note[/yellow] {planned.note}", soft_wrap=True)
    for limits in planned.limits:
        out.print(f"representable concepts: {limits}", soft_wrap=True)
    for warning in planned.warnings:
        kind = "warning" if warning.severity == "error" else warning.severity
        out.print(f"[yellow]{kind}[/yellow] {escape(str(warning))}", soft_wrap=True)
    from search.report.plan_table import print_pair_table, print_plan_table

    print_pair_table(out, planned.pairs, wide=wide)
    print_plan_table(out, planned.samples, planned.classes, planned.sizes, wide=wide)


def search(
    space: SpaceName,
    overrides: Overrides = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    join: Annotated[
        bool,
        typer.Option("--join", help="Take part in the study if it exists; needs PostgreSQL and an own --home."),
    ] = False,
    ids: Ids = "plain",
    quiet: Quiet = False,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Search a space: train and score configurations until the budget is spent.

    Ctrl-C stops the search cleanly; `clinie resume STUDY` continues it.
    """
    from search.api import run

    _hide_warnings(quiet)
    study = run(
        space,
        overrides or (),
        home=home,
        tracking_uri=tracking_uri,
        join=join,
        allow_text=allow_text,
        show_progress=not quiet,
    )
    _show_outcome(study, as_json=as_json)


def transfer(
    space: SpaceName,
    overrides: Overrides = None,
    shots: Annotated[
        str, typer.Option(help="Numbers of documents of the left-out corpus to train on.")
    ] = "0,5,10,20,50",
    seeds: Annotated[int, typer.Option(help="Number of runs with different seeds.", min=1)] = 1,
    split: Annotated[str, typer.Option(help="Split to score on: dev or test.")] = "dev",
    shot_epochs: Annotated[
        int | None, typer.Option(help="Number of epochs on these documents. Default: the space's budget.epochs.", min=1)
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Leave each corpus out in turn, train on the others, and score on it.

    Scores without documents of the left-out corpus and with a few of them (--shots). Open dimensions of the space are
    drawn once. Finished trainings in the home folder are reused.
    """
    import dataclasses

    from clinie_core.errors import fail
    from search.report.terminal import build_transfer_table
    from search.storage.home import Home
    from search.study.transfer import run_transfer, summarize, validate_transfer_space

    if not all(part.strip().isdigit() for part in shots.split(",")):
        fail("--shots", f"found {shots!r}", allowed="integers separated by commas, for example 0,5,20")
    validated = validate_transfer_space(space, overrides or (), split)
    results = run_transfer(
        validated,
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
        rows_json = [dataclasses.asdict(row) for row in rows]
        print_json({"study": validated.file.study, "rows": rows_json, "results": results_json})
        return
    console().print(build_transfer_table(rows))
    console().print(
        f"strict F1 on {split}, with the {'range over seeds' if seeds > 1 else '95 % interval'} in parentheses"
    )


def resume(
    study: StudyName,
    trial: OptionalTrial = None,
    home: HomeFolder = DEFAULT_HOME,
    address: ClusterAddress = None,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    id_: CommandId = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Resume an interrupted study, or what `clinie pause` has paused in a running search.

    Each trial continues after its last finished epoch. Without a running search, also sends the events that MLflow
    could not receive while its server was unavailable. With --address, only a running search is resumed.
    """
    from search.api import load_study

    if address:
        run_on_cluster(address, study, ["resume", *([] if trial is None else [str(trial)])], id_, as_json=as_json)
        return
    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    if trial is not None or id_ is not None or (loaded.is_running and loaded.control.has_pause):
        send_command(study, home, lambda control: control.resume(trial, id_=id_), as_json=as_json)
        return
    _hide_warnings(quiet)
    _show_outcome(loaded.resume(allow_text=allow_text, show_progress=not quiet), as_json=as_json)


def extend(
    study: StudyName,
    trials: Annotated[int, typer.Option(help="Number of additional trials.", min=1)],
    hours: Annotated[
        float | None,
        typer.Option(help="Limit on the run time from now, in hours. Default: the present limit."),
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option(help="Limit on the cost from now, in the currency of budget.cost. Default: the present limit."),
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    quiet: Quiet = False,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Run more trials of a study than its budget allowed, with the same sampler state."""
    from search.api import load_study

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    _hide_warnings(quiet)
    extended = loaded.extend(trials, hours=hours, cost=cost, allow_text=allow_text, show_progress=not quiet)
    _show_outcome(extended, as_json=as_json)


def repeat(
    study: StudyName,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.")],
    seed: Annotated[int | None, typer.Option(help="Seed to use instead of the trial's own.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    quiet: Quiet = False,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Train the configuration of one trial again, as a new study named STUDY-trial-TRIAL."""
    from search.api import load_study

    loaded = load_study(study, home=home, tracking_uri=tracking_uri)
    _hide_warnings(quiet)
    repeated = loaded.repeat_trial(trial, seed=seed, allow_text=allow_text, show_progress=not quiet)
    _show_outcome(repeated, as_json=as_json)


def _hide_warnings(quiet: bool) -> None:
    """Hide the warnings of a search without progress display."""
    if quiet:
        import warnings

        warnings.simplefilter("ignore")


def _show_outcome(study: Study, *, as_json: bool) -> None:
    """Print the trials of a search that has ended, and suggested next commands.

    Raises:
        typer.Exit: With 1 if a signal stopped the search.
    """
    from rich.console import Console

    from search.report.terminal import print_trials

    messages, outcome = Console(stderr=True, highlight=False), study.outcome
    assert outcome is not None, "the study was just run"
    if as_json:
        print_json(outcome.as_json())
    else:
        title = f"study {study.name}, {study.metric} on dev"
        print_trials(console(), title, outcome.trials, study.metric, maximized=study.is_maximized)
    if outcome.ended_because:
        messages.print(f"the search ended: {outcome.ended_because}", soft_wrap=True)
    if outcome.interrupted:
        messages.print(f"{len(outcome.interrupted)} trials interrupted; continue with: clinie resume {outcome.study}")
    if outcome.waiting:
        messages.print(
            f"[yellow]MLflow is unavailable[/yellow]; {outcome.waiting} events are queued in the home folder. Once"
            f" MLflow is available, send them with: clinie resume {outcome.study}",
            soft_wrap=True,
        )
    if outcome.stopped_by_user:
        raise typer.Exit(1)


def status(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name of a study. Default: all studies.")
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    address: ClusterAddress = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Show all studies of a home folder, or the trials of one study.

    With --address, shows the searches that were submitted to that cluster.
    """
    if address:
        show_jobs(connect_jobs(address), study, as_json=as_json)
        return
    from search.api import list_studies, load_study

    if study is not None:
        _show_study(load_study(study, home=home), wide=wide, as_json=as_json)
        return
    rows = [_summarize(load_study(name, home=home)) for name in list_studies(home)]
    if as_json:
        print_json({"studies": rows})
        return
    for row in rows:
        state = "running" if row["running"] else "ended"
        summary = f"{state}, {row['trials']} trials, best {row['best']}, {row['megabytes']:.0f} MB"
        console().print(f"[bold]{row['study']}[/bold]  {summary}")


def _show_study(study: Study, *, wide: bool, as_json: bool) -> None:
    from search.config.resources import find_currency
    from search.ledger.records import sum_usage
    from search.report.terminal import print_trials

    running, trials, megabytes = study.is_running, study.records, study.disk_usage_mb
    commands = study.control.commands
    if as_json:
        best = study.best
        print_json(
            {
                "study": study.name,
                "running": running,
                "trials": [record.as_json() for record in trials],
                "best": {**best.as_json(), **study.ranking[0].as_json()} if best else None,
                "megabytes": megabytes,
                "drivers": study.drivers,
                "paused": running and study.control.is_paused,
                "commands": [entry.as_json() for entry in commands],
                **sum_usage(trials).as_metrics(),
                "currency": find_currency(study.space.resources),
            }
        )
        return
    state = "not running" if not running else "paused" if study.control.is_paused else "running"
    used = sum_usage(trials).describe(find_currency(study.space.resources))
    title = f"study {study.name} ({', '.join(filter(None, (state, f'{megabytes:.0f} MB', used)))})"
    print_trials(console(), title, trials, study.metric, maximized=study.is_maximized, wide=wide)
    drivers = study.drivers
    if len(drivers) > 1:
        console().print(f"\n{len(drivers)} drivers: {', '.join(drivers)}", soft_wrap=True, markup=False)
    if commands:
        console().print("\n[bold]commands[/bold]")
    for entry in commands:
        console().print(f"  {entry}", soft_wrap=True, markup=False)


def _summarize(study: Study) -> dict[str, Any]:
    ranked = study.ranking
    return {
        "study": study.name,
        "running": study.is_running,
        "trials": len(study.records),
        "best": round(ranked[0].mean, 4) if ranked else None,
        "megabytes": study.disk_usage_mb,
    }


COMMANDS = tuple(Command(f, "Search") for f in (init, spaces, plan, search, resume, extend, repeat, status, transfer))
