"""Commands for searches that run elsewhere: on a Ray cluster as a job, or on Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AllowText,
    AsJson,
    ClusterAddress,
    Command,
    HomeFolder,
    Overrides,
    SpaceName,
    TrackingUri,
    console,
    print_json,
)

if TYPE_CHECKING:
    from search.cluster.submission import Jobs

__all__ = ["COMMANDS", "connect_jobs", "show_jobs"]

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
Address = Annotated[
    str | None,
    typer.Option("--address", envvar=ADDRESS_VARIABLE, help="URL of a cluster's Ray dashboard."),
]
ClusterHome = Annotated[str, typer.Option("--home", envvar="CLINIE_HOME", help="The home folder on the cluster.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a study: its newest job.")]


def connect_jobs(address: str | None) -> Jobs:
    """The jobs of a cluster, by the URL of its dashboard."""
    from search.cluster.submission import DEFAULT_ADDRESS, Jobs

    return Jobs(address or DEFAULT_ADDRESS)


def show_jobs(jobs: Jobs, name: str | None, *, as_json: bool) -> None:
    """Print the searches of a cluster, the newest first, or one of them."""
    found = [jobs.find(name)] if name else jobs.list_jobs()
    rows = [
        {
            "job": job.submission_id,
            "study": job.metadata["clinie.study"],
            "home": job.metadata["clinie.home"],
            "status": str(job.status.value).lower(),
            "message": job.message,
        }
        for job in found
    ]
    if as_json:
        print_json({"jobs": rows})
        return
    for row in rows:
        console().print(f"[bold]{row['study']}[/bold]  {row['status']}  {row['job']}  {row['home']}", soft_wrap=True)


def submit(
    space: SpaceName,
    overrides: Overrides = None,
    address: Address = None,
    home: ClusterHome = "/mnt/clinie/home",
    tracking_uri: TrackingUri = None,
    resume: Annotated[bool, typer.Option("--resume", help="SPACE is a study that exists: go on with it.")] = False,
    with_sources: Annotated[
        bool, typer.Option("--with-sources", help="Send this clinie's sources along, in place of the cluster's own.")
    ] = False,
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Send a search to a Ray cluster, whose driver runs there: this machine may go.

    Paths are the cluster's. Passwords are taken from the cluster's environment and are never sent.
    """
    from search.cluster.submission import SearchJob, make_job
    from search.config.space_file import read_space_file

    if resume:
        job = SearchJob(None, space, home, tracking_uri, allow_text)
    else:
        file, _ = read_space_file(space, overrides or ())
        job = make_job(file, home, tracking_uri=tracking_uri, allow_text=allow_text)
    id_ = connect_jobs(address).submit(job, with_sources=with_sources)
    if as_json:
        print_json({"job": id_, "study": job.study})
        return
    console().print(id_)
    for action in ("status", "logs", "stop"):
        console().print(f"  clinie {action} {job.study}{f' --address {address}' if address else ''}", soft_wrap=True)


def logs(
    job: JobName,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print what the driver of a submitted search has printed."""
    jobs = connect_jobs(address)
    for piece in jobs.stream_logs(job) if follow else [jobs.read_logs(job)]:
        sys.stdout.write(piece)
        sys.stdout.flush()


def stop(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study that is being searched, or a job's id.")],
    address: ClusterAddress = None,
    home: HomeFolder = DEFAULT_HOME,
) -> None:
    """Ask a search to end its trials in order; `clinie resume` goes on with them.

    With an address it is a job on that cluster, without one a search in the home folder on this machine.
    """
    if address:
        console().print(f"asked {connect_jobs(address).stop(study)} to stop")
        return
    from search.storage.home import Home
    from search.study.lock import request_stop

    console().print(f"asked process {request_stop(Home.open(home), study)} to stop")


def manifest(
    space: SpaceName,
    overrides: Overrides = None,
    image: Annotated[str, typer.Option(help="A container image with clinie and its dependencies.")] = "clinie:latest",
    volume_claim: Annotated[
        str, typer.Option(help="A persistent volume claim that head and workers mount at /mnt/clinie.")
    ] = "clinie",
    secret: Annotated[
        str, typer.Option(help="A secret whose keys become environment variables: CLINIE_LEDGER, AWS keys ...")
    ] = "clinie",
    workers: Annotated[int, typer.Option(help="Most workers at once.", min=1)] = 4,
    home: ClusterHome = "/mnt/clinie/home",
    tracking_uri: TrackingUri = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; standard output if left out.")] = None,
) -> None:
    """Write a KubeRay RayJob for a search: `clinie manifest SPACE | kubectl apply -f -`."""
    import yaml

    from search.cluster.manifest import render_ray_job
    from search.cluster.submission import make_job
    from search.config.space_file import read_space_file

    file, _ = read_space_file(space, overrides or ())
    job = make_job(file, home, tracking_uri=tracking_uri)
    content = render_ray_job(job, file, image=image, volume_claim=volume_claim, secret=secret, workers=workers)
    text = yaml.safe_dump_all(content, sort_keys=False)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Cluster") for f in (submit, logs, stop, manifest))
