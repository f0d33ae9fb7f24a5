"""A search as a job on a Ray cluster: its driver runs there, so that whoever sent it may close the laptop.

What is sent is one space file, its overrides applied. The cluster has clinie already (cluster.yaml installs it), or
gets this one's sources along with the job. Passwords are not sent: whatever is part of a job is shown to all who may
look at jobs, so the cluster's own environment holds ``CLINIE_LEDGER`` and the like.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from ray.dashboard.modules.dashboard_sdk import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

import clinie_core
from clinie_core.errors import fail
from search.config.space_file import SpaceFile

__all__ = ["DEFAULT_ADDRESS", "ENVIRONMENT", "SPACE_FILE", "Jobs", "SearchJob", "make_job", "render_space"]

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
"""Of a job: the seconds that a driver may take to end its trials in order; Ray would give it three."""
SPACE_FILE = "space.yaml"


@dataclass(frozen=True)
class SearchJob:
    """What to run on the cluster.

    Args:
        file: The space, validated; its corpus paths are the cluster's. None to go on with a study.
        study: Its name.
        home: The home folder on the cluster.
        tracking_uri: The MLflow that the cluster's driver reaches; None for the environment's or the home's own.
        allow_text: Whether failure reasons may carry an error's own words.
    """

    file: SpaceFile | None
    study: str
    home: str
    tracking_uri: str | None = None
    allow_text: bool = False

    def make_entrypoint(self, folder: str = "") -> str:
        """The driver's command.

        Args:
            folder: Where the space's file is; the driver's working folder if left out.
        """
        what = ["search", posixpath.join(folder, SPACE_FILE)] if self.file is not None else ["resume", self.study]
        words = ["python", "-m", "search.cli", *what, "--home", self.home]
        words += ["--tracking-uri", self.tracking_uri] if self.tracking_uri else []
        words += ["--allow-text"] if self.allow_text else []
        return shlex.join(words)


def render_space(file: SpaceFile) -> str:
    """A space as the YAML that goes along with its job."""
    return str(yaml.safe_dump(file.model_dump(mode="json", exclude_none=True), sort_keys=False))


def make_job(file: SpaceFile, home: str, *, tracking_uri: str | None = None, allow_text: bool = False) -> SearchJob:
    """A search of a space as a job.

    Raises:
        InputError: If a corpus or the home is named by a path that means something else on the cluster.
    """
    for at, source in enumerate(file.corpus):
        if not os.path.isabs(source.path):
            key = f"corpus.{at}.path" if len(file.corpus) > 1 else "corpus.path"
            fail(
                key, f"{source.path} is relative, and the search runs on the cluster", allowed="an absolute path there"
            )
    if not os.path.isabs(home):
        fail("--home", f"{home} is relative, and the search runs on the cluster", allowed="an absolute path there")
    if tracking_uri and "@" in tracking_uri:
        remedy = "set CLINIE_TRACKING_URI in the cluster's environment"
        fail(
            "--tracking-uri",
            "a URL with an account in it would be shown with the job",
            allowed="one without",
            remedy=remedy,
        )
    return SearchJob(file, file.study, home, tracking_uri, allow_text)


class Jobs:
    """The jobs of a cluster.

    Args:
        address: URL of Ray's dashboard.

    Raises:
        InputError: If it does not answer or does not know the token.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError:
            remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
            fail("--address", f"the cluster at {address} does not know this token", remedy=remedy)
        except (ConnectionError, requests.RequestException):
            remedy = "forward the port: ray attach cluster.yaml -p 8265"
            fail("--address", f"no Ray dashboard answers at {address}", allowed="the URL of one", remedy=remedy)

    def submit(self, job: SearchJob, *, with_sources: bool) -> str:
        """Send a search.

        Args:
            job: What to run.
            with_sources: Send this clinie's sources along, in place of the cluster's own.

        Returns:
            The job's id.
        """
        environment: dict[str, Any] = {"env_vars": ENVIRONMENT}
        if with_sources:
            core = Path(clinie_core.__file__).parent
            environment["py_modules"] = [str(core), str(core.parent / "search")]
        with tempfile.TemporaryDirectory() as place:
            if job.file is not None:
                (Path(place) / SPACE_FILE).write_text(render_space(job.file), encoding="utf-8")
                environment["working_dir"] = place
            id_: str = self._client.submit_job(
                entrypoint=job.make_entrypoint(),
                submission_id=f"clinie-{job.study}-{uuid.uuid4().hex[:8]}",
                runtime_env=environment,
                metadata={"clinie.study": job.study, "clinie.home": job.home},
            )
        return id_

    def find(self, name: str) -> JobDetails:
        """A job by its id, or the newest one of a study.

        Raises:
            InputError: If there is none.
        """
        jobs = self.list_jobs()
        found = [job for job in jobs if name in (job.submission_id, (job.metadata or {}).get("clinie.study"))]
        if not found:
            known = ", ".join(str(job.submission_id) for job in jobs) or "none yet"
            fail("job", f"no job or study {name!r} at {self._address}", allowed=known)
        return found[0]

    def list_jobs(self) -> list[JobDetails]:
        """Clinie's jobs, the newest one first."""
        jobs = [job for job in self._client.list_jobs() if (job.metadata or {}).get("clinie.study")]
        return sorted(jobs, key=lambda job: -(job.start_time or 0))

    def read_logs(self, name: str) -> str:
        """What a job's driver has printed so far."""
        return str(self._client.get_job_logs(self.find(name).submission_id))

    def stream_logs(self, name: str) -> Iterator[str]:
        """What a job's driver prints, until it ends."""
        import asyncio

        stream = self._client.tail_job_logs(self.find(name).submission_id)

        async def piece() -> str | None:
            return await anext(stream, None)

        with asyncio.Runner() as runner:
            while (text := runner.run(piece())) is not None:
                yield text

    def stop(self, name: str) -> str:
        """Ask a job's driver to end its trials in order; a resume goes on with them.

        Returns:
            The job's id.
        """
        id_ = str(self.find(name).submission_id)
        self._client.stop_job(id_)
        return id_
