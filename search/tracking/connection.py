"""Connection to MLflow: the database of a home folder, or a server."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Otherwise MLflow prints the address of each run that ends on a server, also before the output of --json.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The outbox retries events, so that a search does not wait for an unavailable server.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

import clinie_core
from clinie_core.errors import DiskFull, fail
from search.storage.home import Home, compute_source_digest, hide_password
from search.storage.home_version import record_version
from search.storage.relocation import record_path
from search.storage.schema_lock import is_postgresql, lock_schema

__all__ = [
    "connect",
    "fetch_artifacts",
    "get_code_version",
    "get_or_create_experiment",
    "is_unreachable",
    "log_report",
    "require_reachable",
    "require_run",
]

OPENED_AS = {"mlflow.experimentKind": "custom_model_development"}
"""Experiment tag that selects the model-training view of MLflow's UI."""
LOCK_SECONDS = 30.0
"""Time to wait for another process that has locked the database of a home folder."""
PAUSE_SECONDS = 0.5
LOCKED = "database is locked"
UNAVAILABLE_CODES = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "CANCELLED",
}
"""MLflow error codes caused by the server or its database, not by the request."""
REJECTED_CODES = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
"""MLflow error codes of a missing, wrong or expired token; a proxy before the server answers so, too."""


def connect(home: Home) -> MlflowClient:
    """Return a client of a home folder's MLflow.

    Raises:
        InputError: If the folder's database cannot be used.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # clinie reports an unavailable server or a full database itself, in one line.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(home.tracking_uri)
    mlflow.set_registry_uri(home.tracking_uri)
    if is_postgresql(home.tracking_uri):
        _create_tables(home.tracking_uri)
    # Nothing is written to the folder of a search that may not start, because its server does not answer.
    if not home.root.is_dir() or (home.server is not None and not home.ledger_file.exists()):
        return MlflowClient(home.tracking_uri, home.tracking_uri)
    with _report_database_errors(home), (home.root / "mlflow.lock").open("w", encoding="ascii") as lock:
        # MLflow creates its tables at first use; two processes that create them at once corrupt the database.
        fcntl.flock(lock, fcntl.LOCK_EX)
        record_version(home.root)
        record_path(home.root)
        if home.server is not None:
            return MlflowClient(home.tracking_uri, home.tracking_uri)
        client = MlflowClient(home.tracking_uri, home.tracking_uri)
        _open_database(client)
    return client


def _create_tables(uri: str) -> None:
    """Create the tables of a PostgreSQL database that has none, while no other process does.

    An error is left to the next call, which reports it.
    """
    with suppress(DBAPIError, ImportError, MlflowException), lock_schema(uri):
        MlflowClient(uri, uri)  # its constructor creates the tables


def _open_database(client: MlflowClient) -> None:
    """Create the tables of a new database; wait for another process that has locked it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            client.search_experiments(max_results=1)
            return
        except (OperationalError, MlflowException) as error:
            if LOCKED not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


@contextmanager
def _report_database_errors(home: Home) -> Iterator[None]:
    """Convert errors of a home folder's MLflow database within this context to one line.

    Raises:
        InputError: If the folder or its database cannot be written, or the database is locked, damaged or of another
            version of MLflow.
        DiskFull: If the disk is full.
    """
    file = home.root / "mlflow.db"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{home.root} cannot be written: {error.strerror}; free some space") from None
        fail("--home", f"{home.root} cannot be written: {error.strerror}", allowed="a writable folder")
    except (DatabaseError, sqlite3.DatabaseError, MlflowException) as error:
        message = str(error)
        if "disk is full" in message:
            raise DiskFull(f"{file} cannot be written: {os.strerror(errno.ENOSPC)}; free some space") from None
        if LOCKED in message:
            fail(str(file), "another process has locked the database", remedy="wait until that process ends")
        if "readonly database" in message or "unable to open database" in message:
            fail(str(file), "cannot be written", allowed="a file that you can write, in a writable folder")
        if "not a database" in message or "malformed" in message:
            fail(str(file), "the database is damaged", remedy="restore the file from a backup")
        if "database schema" in message or "Can't locate revision" in message:
            found = f"the database has the schema of another version than MLflow {mlflow.__version__}"
            remedy = "use the version of clinie that wrote it, or copy the file and run: mlflow db upgrade"
            fail(str(file), found, remedy=f"{remedy} {home.tracking_uri}")
        raise


def is_unreachable(error: Exception) -> bool:
    """Return whether an error means that the server, its database or its storage is unavailable, or rejects us.

    A search continues in both cases, because a token can expire; its events wait in the outbox.
    """
    if isinstance(error, MlflowException):
        return error.error_code in UNAVAILABLE_CODES | REJECTED_CODES
    return isinstance(error, OSError)  # errors of the HTTP client are subclasses


def require_run(client: MlflowClient, run_id: str | None) -> None:
    """Check that MLflow has the run of a study that other drivers search.

    Args:
        client: The MLflow client of this driver.
        run_id: Id of the run; None if the ledger does not have it yet.

    Raises:
        InputError: If MLflow does not have it.
    """
    try:
        if run_id is not None:
            client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = f"{hide_password(client.tracking_uri)} does not have the study's run"
        fail("--tracking-uri", found, allowed="the MLflow server of the drivers that search the study")


def require_reachable(client: MlflowClient) -> None:
    """Check that MLflow answers.

    Raises:
        InputError: If it does not answer, rejects the token, or its certificate is not trusted.
    """
    try:
        client.search_experiments(max_results=1)
    except Exception as error:
        if not is_unreachable(error):
            raise
        address = hide_password(client.tracking_uri)
        if isinstance(error, MlflowException) and error.error_code in REJECTED_CODES:
            remedy = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            fail("--tracking-uri", f"MLflow at {address} rejects the request", remedy=remedy)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file with the certificate of its CA"
            fail("--tracking-uri", f"the certificate of MLflow at {address} is not trusted", remedy=remedy)
        found = f"MLflow does not answer at {address}"
        fail(
            "--tracking-uri",
            found,
            allowed="the URL of a running server; without the option, a database in the home folder is used",
        )


@cache
def get_code_version() -> str:
    """Return clinie's version, the commit of its checkout if there is one, and a digest of its sources."""
    root = Path(clinie_core.__file__).parent.parent
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = f"+{found.stdout.strip()}" if found.returncode == 0 and (root / "pyproject.toml").is_file() else ""
    return f"{clinie_core.__version__}{commit} ({compute_source_digest()[:12]})"


def get_or_create_experiment(client: MlflowClient, home: Home, name: str) -> str:
    """Return the id of an experiment, which is created if it does not exist."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    remote = client.tracking_uri.startswith(("http:", "https:"))
    location = None if remote else f"{home.artifacts}/{name}"
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=OPENED_AS))
    except MlflowException:  # on a shared server, another process has just created it
        again = client.get_experiment_by_name(name)
        if again is None:
            raise
        return str(again.experiment_id)


def log_report(client: MlflowClient, run_id: str, file: Path) -> None:
    """Store a report as an artifact of its study's run."""
    client.log_artifact(run_id, str(file), "report")


def fetch_artifacts(uri: str, target: Path) -> Path:
    """Download an artifact, a file or folder, to this machine.

    Returns:
        Its local path; a local artifact is not copied.
    """
    return Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if uri.startswith("file:") else str(target))
    )
