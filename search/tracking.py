"""Tracking in MLflow: a parent run a study, a child run a trial, its curve, its best checkpoint.

Nothing of a document's text goes there: parameters, numbers, digests and weights only.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

import clinie_core
from clinie_core.config import TrialConfig
from search.settings import Home, source_digest

__all__ = ["CHECKPOINT", "Tracker", "code_version", "connect", "fetch_artifacts", "record_transfer"]

CHECKPOINT = "checkpoint"
BATCH_PARAMS = 100
BATCH_METRICS = 1000
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "interrupted": "SCHEDULED"}
"""A trial's state as the status of its run; the tag `state` says it in the ledger's own word."""


def connect(home: Home, tracking_uri: str | None = None) -> MlflowClient:
    """A client of a home folder's MLflow database, or of a server."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri = tracking_uri or home.tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return MlflowClient(uri, uri)


def code_version() -> str:
    """Clinie's version, the commit of its checkout if there is one, and a digest of its sources."""
    root = Path(clinie_core.__file__).parent.parent
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = f"+{found.stdout.strip()}" if found.returncode == 0 and (root / "pyproject.toml").is_file() else ""
    return f"{clinie_core.__version__}{commit} ({source_digest()[:12]})"


def experiment_id(client: MlflowClient, home: Home, study: str) -> str:
    """A study's experiment, made where it is not there."""
    found = client.get_experiment_by_name(study)
    if found is not None:
        return str(found.experiment_id)
    remote = mlflow.get_tracking_uri().startswith(("http:", "https:"))
    location = None if remote else (home.artifacts / study).as_uri()
    try:
        return str(client.create_experiment(study, artifact_location=location))
    except MlflowException:  # another study of this name came first, on a shared server
        again = client.get_experiment_by_name(study)
        if again is None:
            raise
        return str(again.experiment_id)


class Tracker:
    """Writes one study's runs; a listener of the study's trials.

    Args:
        client: The connection.
        home: Where artifacts go.
        study: The study's name, which is also its experiment's.
        tags: Tags of the parent run.
        corpus_digest: Of the splits that the search reads.
    """

    def __init__(
        self, client: MlflowClient, home: Home, study: str, *, tags: Mapping[str, str], corpus_digest: str
    ) -> None:
        self._client = client
        self._corpus_digest = corpus_digest
        self._version = code_version()
        self._experiment = experiment_id(client, home, study)
        self.parent = self._parent_run(study, tags)
        self.runs: dict[int, str] = {}

    def _parent_run(self, study: str, tags: Mapping[str, str]) -> str:
        found = self._client.search_runs(
            [self._experiment], f"tags.clinie.kind = 'study' and tags.clinie.study = '{study}'", ViewType.ACTIVE_ONLY, 1
        )
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        run = self._client.create_run(
            self._experiment,
            run_name=study,
            tags={
                "clinie.kind": "study",
                "clinie.study": study,
                "clinie.code": self._version,
                "clinie.corpus_digest": self._corpus_digest,
                **tags,
            },
        )
        return str(run.info.run_id)

    def begin(self, number: int, config: TrialConfig, run_id: str | None) -> str:
        """Open a trial's run, the same one if the trial goes on.

        Returns:
            The run's id.
        """
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, "clinie.state", "running")
            self.runs[number] = run_id
            return run_id
        method = config.finetuning.name
        tags = {
            MLFLOW_PARENT_RUN_ID: self.parent,
            MLFLOW_RUN_NAME: f"{number:03d} {config.backbone.name} {method}",
            "clinie.kind": "trial",
            "clinie.trial": str(number),
            "clinie.state": "running",
            "clinie.backbone": config.backbone.name,
            "clinie.formulation": config.formulation.name,
            "clinie.finetuning": method,
            "clinie.config_digest": config.digest(),
            "clinie.corpus_digest": self._corpus_digest,
            "clinie.code": self._version,
        }
        run = self._client.create_run(self._experiment, tags=tags, run_name=tags[MLFLOW_RUN_NAME])
        new = str(run.info.run_id)
        params = [Param(k, str(v)) for k, v in config.flattened().items()]
        self._client.log_batch(new, params=params[:BATCH_PARAMS])
        self.runs[number] = new
        return new

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write an epoch's metrics, with the epoch as their step."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.runs[number], metrics=[Metric(k, v, now, epoch) for k, v in metrics.items()])

    def end(
        self, number: int, state: str, *, reason: str | None, best: Mapping[str, float], checkpoint: Path | None
    ) -> str | None:
        """Close a trial's run.

        Args:
            number: The trial.
            state: How the ledger has it.
            reason: Why it failed, without document text.
            best: The metrics of its best epoch.
            checkpoint: A folder to keep as the run's artifact ``checkpoint``.

        Returns:
            The URI of the checkpoint's artifact, if there is one.
        """
        run_id = self.runs[number]
        now = int(time.time() * 1000)
        tags = [RunTag("clinie.state", state)] + ([RunTag("clinie.reason", reason)] if reason else [])
        self._client.log_batch(run_id, metrics=[Metric(f"best_{k}", v, now, 0) for k, v in best.items()], tags=tags)
        uri = None
        if checkpoint is not None:
            self._client.log_artifacts(run_id, str(checkpoint), CHECKPOINT)
            uri = f"{self._client.get_run(run_id).info.artifact_uri}/{CHECKPOINT}"
        if state == "interrupted":
            self._client.update_run(run_id, status="SCHEDULED")
        else:
            self._client.set_terminated(run_id, STATUS[state])
        return uri

    def close(self, status: str, summary: Mapping[str, Any]) -> None:
        """Close the study's run.

        Args:
            status: One of MLflow's run statuses.
            summary: Numbers become metrics, anything else tags.
        """
        now = int(time.time() * 1000)
        numbers = [Metric(k, float(v), now, 0) for k, v in summary.items() if isinstance(v, (int, float))]
        tags = [RunTag(k, str(v)) for k, v in summary.items() if not isinstance(v, (int, float))]
        self._client.log_batch(self.parent, metrics=numbers, tags=tags)
        if RunStatus.is_terminated(RunStatus.from_string(status)):
            self._client.set_terminated(self.parent, status)
        else:
            self._client.update_run(self.parent, status=status)


def record_transfer(
    client: MlflowClient, home: Home, study: str, config: TrialConfig, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the results of a transfer protocol as one run, the seeds as steps, with all rows as its artifact.

    Args:
        client: The connection.
        home: Where artifacts go.
        study: The experiment's name.
        config: What was trained.
        rows: ``holdout``, ``shots``, ``seed`` and ``metrics`` of each result.
    """
    experiment = experiment_id(client, home, study)
    tags = {"clinie.kind": "transfer", "clinie.study": study, "clinie.code": code_version()}
    run_id = str(client.create_run(experiment, run_name=f"{study} transfer", tags=tags).info.run_id)
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"{row['holdout']}.{row['shots']}_shot.{name}", value, now, row["seed"])
        for row in rows
        for name, value in row["metrics"].items()
    ]
    client.log_batch(run_id, params=[Param(k, str(v)) for k, v in config.flattened().items()][:BATCH_PARAMS])
    for at in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[at : at + BATCH_METRICS])
    client.log_dict(run_id, {"results": [dict(row) for row in rows]}, "transfer.json")
    client.set_terminated(run_id, "FINISHED")


def fetch_artifacts(uri: str, target: Path) -> Path:
    """Bring an artifact folder to this machine.

    Returns:
        The local folder, which is the artifact itself where it is local already.
    """
    return Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if uri.startswith("file:") else str(target))
    )
