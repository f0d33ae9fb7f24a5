"""The connection to MLflow: a home folder's own database, or a server by its URL."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
from functools import cache
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A search does not stand still for a server that is away: what it has to say waits in the outbox.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.errors import fail
from search.storage.home import Home, compute_source_digest, hide_password

__all__ = [
    "code_version",
    "connect",
    "fetch_artifacts",
    "get_or_create_experiment",
    "is_unreachable",
    "log_report",
    "require_reachable",
]

OPENED_AS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's UI then shows the experiment as runs and models, not as conversations."""
AWAY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "CANCELLED"}
"""Error codes of MLflow that speak of the server or its database, not of what was asked."""


def connect(home: Home) -> MlflowClient:
    """A client of a home's MLflow."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # A server that is away and a database that is away or full are said once, by us.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(home.tracking_uri)
    mlflow.set_registry_uri(home.tracking_uri)
    if home.server is not None or not home.root.is_dir():
        return MlflowClient(home.tracking_uri, home.tracking_uri)
    with (home.root / "mlflow.lock").open("w", encoding="ascii") as lock:
        # MLflow makes its tables when it first looks at them, and two processes that do so at once break them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(home.tracking_uri, home.tracking_uri)
        client.search_experiments(max_results=1)
    return client


def is_unreachable(error: Exception) -> bool:
    """Whether an error says that the server, its database or its storage is away, rather than that a call was wrong."""
    if isinstance(error, MlflowException):
        return error.error_code in AWAY
    return isinstance(error, OSError)  # what the HTTP client raises is one


def require_reachable(client: MlflowClient) -> None:
    """Check that MLflow answers before anything begins.

    Raises:
        InputError: If it does not.
    """
    try:
        client.search_experiments(max_results=1)
    except Exception as error:
        if not is_unreachable(error):
            raise
        found = f"MLflow does not answer at {hide_password(client.tracking_uri)}"
        fail(
            "--tracking-uri",
            found,
            allowed="the URL of a server that runs, or nothing for a database in the home folder",
        )


@cache
def code_version() -> str:
    """Clinie's version, the commit of its checkout if there is one, and a digest of its sources."""
    root = Path(clinie_core.__file__).parent.parent
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = f"+{found.stdout.strip()}" if found.returncode == 0 and (root / "pyproject.toml").is_file() else ""
    return f"{clinie_core.__version__}{commit} ({compute_source_digest()[:12]})"


def get_or_create_experiment(client: MlflowClient, home: Home, name: str) -> str:
    """An experiment by its name, made where it is not there."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    remote = client.tracking_uri.startswith(("http:", "https:"))
    location = None if remote else f"{home.artifacts}/{name}"
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=OPENED_AS))
    except MlflowException:  # another study of this name came first, on a shared server
        again = client.get_experiment_by_name(name)
        if again is None:
            raise
        return str(again.experiment_id)


def log_report(client: MlflowClient, run_id: str, file: Path) -> None:
    """Keep a report as an artifact of its study's run."""
    client.log_artifact(run_id, str(file), "report")


def fetch_artifacts(uri: str, target: Path) -> Path:
    """Bring an artifact, a file or a folder, to this machine.

    Returns:
        Where it is, which is the artifact itself where it is local already.
    """
    return Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if uri.startswith("file:") else str(target))
    )
