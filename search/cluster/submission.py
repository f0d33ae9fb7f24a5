"""Searches as jobs on a Ray cluster: the driver runs on the cluster, independently of the submitting machine.

A job contains one space file with its overrides applied. clinie is installed on the cluster (see cluster.yaml), or its
sources are uploaded with the job. Jobs contain no passwords, because everyone with access to the cluster can read
them; variables such as ``CLINIE_LEDGER`` are set in the cluster's own environment.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
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

__all__ = ["DEFAULT_ADDRESS", "ENVIRONMENT", "SPACE_FILE", "STUDY", "Jobs", "SearchJob", "make_job", "render_space"]

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": "120", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Environment of a job.

A driver may take 120 seconds to stop cleanly; Ray's default is three. GPUs are hidden from processes that requested
none.
"""
SPACE_FILE = "space.yaml"
PROGRAM_SECONDS = 120.0
"""Time limit of a program that a command waits for."""
PAUSE_SECONDS = 0.5
STUDY = "{study}"
"""Argument of a command that is replaced by the name of a job's study."""


@dataclass(frozen=True)
class SearchJob:
    """A search to run on a cluster.

    Args:
        file: The validated space file, with corpus paths on the cluster; None to resume a study.
        study: Name of the study.
        home: Home folder on the cluster.
        tracking_uri: URL of MLflow as the cluster reaches it; None for the cluster's environment or home folder.
        allow_text: Let failure reasons quote error messages.
        hash_ids: Show hashes instead of document ids and file names.
    """

    file: SpaceFile | None
    study: str
    home: str
    tracking_uri: str | None = None
    allow_text: bool = False
    hash_ids: bool = False

    def make_entrypoint(self, folder: str = "") -> str:
        """Return the shell command of the driver.

        Args:
            folder: Folder of the space file; the driver's working folder if empty.
        """
        command = ["search", posixpath.join(folder, SPACE_FILE)] if self.file is not None else ["resume", self.study]
        arguments = ["python", "-m", "search.cli", *command, "--home", self.home]
        arguments += ["--tracking-uri", self.tracking_uri] if self.tracking_uri else []
        arguments += ["--allow-text"] if self.allow_text else []
        arguments += ["--ids", "hash"] if self.hash_ids else []
        return shlex.join(arguments)


def render_space(file: SpaceFile) -> str:
    """Return a space file as YAML text."""
    return str(yaml.safe_dump(file.model_dump(mode="json", exclude_none=True), sort_keys=False))


def make_job(file: SpaceFile, home: str, *, tracking_uri: str | None = None, allow_text: bool = False) -> SearchJob:
    """Return the job that searches a space.

    Args:
        file: The space file.
        home: Home folder on the cluster.
        tracking_uri: As for :class:`SearchJob`.
        allow_text: As for :class:`SearchJob`.

    Raises:
        InputError: If a corpus path or the home folder is relative, or the URL contains a user name or password.
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
            "the URL contains a user name or password, which everyone with access to the cluster could read",
            allowed="a URL without them",
            remedy=remedy,
        )
    return SearchJob(file, file.study, home, tracking_uri, allow_text)


class Jobs:
    """Client for the jobs of a cluster.

    Args:
        address: URL of the cluster's Ray dashboard.

    Raises:
        InputError: If the dashboard does not answer or rejects the token.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError:
            remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
            fail("--address", f"the cluster at {address} rejects the token", remedy=remedy)
        except (ConnectionError, requests.RequestException):
            remedy = "forward the port: ray attach cluster.yaml -p 8265"
            fail("--address", f"no Ray dashboard answers at {address}", allowed="the URL of a dashboard", remedy=remedy)

    def submit(self, job: SearchJob, *, with_sources: bool) -> str:
        """Submit a search.

        Args:
            job: The search.
            with_sources: Upload the sources of the local clinie, to be used instead of the cluster's.

        Returns:
            Id of the job.
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

    def run_program(self, command: str) -> str:
        """Run a short program on the cluster, and return its output.

        Args:
            command: Shell command.
        """
        id_ = self._client.submit_job(entrypoint=command, submission_id=f"clinie-program-{uuid.uuid4().hex[:8]}")
        end = time.monotonic() + PROGRAM_SECONDS
        while not self._client.get_job_status(id_).is_terminal() and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)
        return str(self._client.get_job_logs(id_))

    def find(self, name: str) -> JobDetails:
        """Return the job with this id, or the newest job of a study with this name.

        Raises:
            InputError: If there is no such job.
        """
        jobs = self.list_jobs()
        found = [job for job in jobs if name in (job.submission_id, (job.metadata or {}).get("clinie.study"))]
        if not found:
            known = ", ".join(str(job.submission_id) for job in jobs) or "none yet"
            fail("job", f"no job or study {name!r} at {self._address}", allowed=known)
        return found[0]

    def list_jobs(self) -> list[JobDetails]:
        """Return the jobs that clinie has submitted, newest first."""
        jobs = [job for job in self._client.list_jobs() if (job.metadata or {}).get("clinie.study")]
        return sorted(jobs, key=lambda job: -(job.start_time or 0))

    def read_logs(self, name: str) -> str:
        """Return the output of a job's driver so far."""
        return str(self._client.get_job_logs(self.find(name).submission_id))

    def stream_logs(self, name: str) -> Iterator[str]:
        """Yield the output of a job's driver until the job ends."""
        import asyncio

        stream = self._client.tail_job_logs(self.find(name).submission_id)

        async def read_next() -> str | None:
            return await anext(stream, None)

        with asyncio.Runner() as runner:
            while (text := runner.run(read_next())) is not None:
                yield text

    def run_command(self, name: str, arguments: Sequence[str]) -> tuple[int, str]:
        """Run a command of clinie on the cluster for the study of a job, and wait for its end.

        Args:
            name: Id of a job, or name of a study.
            arguments: Arguments of ``clinie``, without the name of the study (``{study}``) and the home folder.

        Returns:
            Its exit code and its output.
        """
        job = self.find(name)
        metadata = job.metadata or {}
        words = [metadata["clinie.study"] if word == STUDY else word for word in arguments]
        command = ["python", "-m", "search.cli", *words, "--home", metadata["clinie.home"]]
        used = job.runtime_env or {}
        environment = {key: used[key] for key in ("env_vars", "py_modules") if key in used}  # the search's own sources
        id_ = self._client.submit_job(entrypoint=shlex.join(command), runtime_env=environment)
        while not self._client.get_job_status(id_).is_terminal():
            time.sleep(PAUSE_SECONDS)
        code = self._client.get_job_info(id_).driver_exit_code
        return 1 if code is None else int(code), str(self._client.get_job_logs(id_))

    def stop(self, name: str) -> str:
        """Request a clean stop of a job's driver; its trials can be resumed.

        Returns:
            Id of the job.
        """
        id_ = str(self.find(name).submission_id)
        self._client.stop_job(id_)
        return id_
