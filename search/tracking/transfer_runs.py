"""MLflow run of a transfer protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from clinie_core.config import TrialConfig
from search.storage.home import Home
from search.tracking.connection import get_code_version, get_or_create_experiment
from search.tracking.metric_names import name_transfer
from search.tracking.runs import BATCH_METRICS, make_params

__all__ = ["record_transfer"]


def record_transfer(
    client: MlflowClient, home: Home, study: str, config: TrialConfig, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the results of a transfer protocol as one run, with seeds as steps and all rows as an artifact.

    Args:
        client: The MLflow client.
        home: Home folder of the artifacts.
        study: Name of the experiment.
        config: The trained configuration.
        rows: ``holdout``, ``shots``, ``seed`` and ``metrics`` of each result.
    """
    experiment = get_or_create_experiment(client, home, study)
    tags = {"clinie.kind": "transfer", "clinie.study": study, "clinie.code": get_code_version()}
    run_id = str(client.create_run(experiment, run_name=f"{study} transfer", tags=tags).info.run_id)
    now = int(time.time() * 1000)
    metrics = [
        Metric(name_transfer(row["holdout"], row["shots"], name), value, now, row["seed"])
        for row in rows
        for name, value in row["metrics"].items()
    ]
    client.log_batch(run_id, params=make_params(config))
    for at in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[at : at + BATCH_METRICS])
    client.log_dict(run_id, {"results": [dict(row) for row in rows]}, "transfer.json")
    client.set_terminated(run_id, "FINISHED")
