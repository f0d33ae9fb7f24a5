"""Commands for searches on a Ray cluster or on Kubernetes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import (
    AllowText,
    AsJson,
    Command,
    Ids,
    Overrides,
    Overwrite,
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
    typer.Option("--address", envvar=ADDRESS_VARIABLE, help="URL of the cluster's Ray dashboard."),
]
ClusterHome = Annotated[str, typer.Option("--home", envvar="CLINIE_HOME", help="Home folder on the cluster.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or name of a study for its newest job.")]


def connect_jobs(address: str | None) -> Jobs:
    """Connect to the jobs of a cluster through its Ray dashboard."""
    from search.cluster.submission import DEFAULT_ADDRESS, Jobs

    return Jobs(address or DEFAULT_ADDRESS)


def show_jobs(jobs: Jobs, name: str | None, *, as_json: bool) -> None:
    """Print all searches of a cluster, newest first, or one of them."""
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
    resume: Annotated[bool, typer.Option("--resume", help="Resume the study named SPACE.")] = False,
    with_sources: Annotated[
        bool,
        typer.Option("--with-sources", help="Upload the local sources of clinie, to be used instead of the cluster's."),
    ] = False,
    ids: Ids = "plain",
    as_json: AsJson = False,
    allow_text: AllowText = False,
) -> None:
    """Submit a search to a Ray cluster, where it runs independently of this machine.

    Paths refer to the cluster. Passwords are read from the cluster's environment and never sent.
    """
    from search.cluster.submission import SearchJob, make_job
    from search.config.space_reading import read_space_file

    if resume:
        job = SearchJob(None, space, home, tracking_uri, allow_text)
    else:
        file, _ = read_space_file(space, overrides or ())
        job = make_job(file, home, tracking_uri=tracking_uri, allow_text=allow_text)
    job = replace(job, hash_ids=ids == "hash")
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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new output until the job ends.")] = False,
) -> None:
    """Print the output of a submitted search."""
    jobs = connect_jobs(address)
    for piece in jobs.stream_logs(job) if follow else [jobs.read_logs(job)]:
        sys.stdout.write(piece)
        sys.stdout.flush()


def manifest(
    space: SpaceName,
    overrides: Overrides = None,
    image: Annotated[str, typer.Option(help="Container image with clinie and its dependencies.")] = "clinie:latest",
    volume_claim: Annotated[
        str, typer.Option(help="Persistent volume claim that all pods mount at /mnt/clinie.")
    ] = "clinie",
    secret: Annotated[
        str, typer.Option(help="Secret whose keys become environment variables, such as CLINIE_LEDGER or AWS keys.")
    ] = "clinie",
    workers: Annotated[
        int, typer.Option(help="Maximum number of worker pods of a class without concurrent_trials.", min=1)
    ] = 4,
    home: ClusterHome = "/mnt/clinie/home",
    tracking_uri: TrackingUri = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write to. Default: standard output.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a search as a Kubernetes manifest, a KubeRay RayJob.

    Start it with `clinie manifest SPACE | kubectl apply -f -`.
    """
    import yaml

    from clinie_core.output_files import check_output_files, write_output
    from search.cluster.manifest import render_ray_job
    from search.cluster.submission import make_job
    from search.config.space_reading import read_space_file
    from search.study.pod_sizes import estimate_pods

    if output is not None:
        check_output_files(output, overwrite=overwrite)
    file, _ = read_space_file(space, overrides or ())
    sizes = estimate_pods(space, overrides or (), file)
    if sizes.note:
        typer.echo(f"note {sizes.note}", err=True)
    file = file.model_copy(update={"resources": sizes.classes})
    job = make_job(file, home, tracking_uri=tracking_uri)
    content = render_ray_job(
        job,
        file,
        image=image,
        volume_claim=volume_claim,
        secret=secret,
        workers=workers,
        memory_mb=sizes.memory_mb,
    )
    text = yaml.safe_dump_all(content, sort_keys=False)
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(output, text)


COMMANDS: tuple[Any, ...] = tuple(Command(f, "Cluster") for f in (submit, logs, manifest))
