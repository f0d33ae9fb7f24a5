"""What an event of a study becomes in MLflow; every event can be delivered twice and counts once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from clinie_core.backbones.facts import read_architecture
from clinie_core.config import TrialConfig
from clinie_core.scoring.document_counts import FILE as COUNTS_FILE
from search.config.description import format_formulation, make_run_name
from search.config.objectives import SYSTEM
from search.tracking.datasets import DatasetFacts, make_dataset_inputs
from search.tracking.outbox import Event

__all__ = ["BATCH_METRICS", "CHECKPOINT", "Runs", "params_of"]

CHECKPOINT = "checkpoint"
BATCH_PARAMS = 100
BATCH_METRICS = 1000
STATUS = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "infeasible": "FAILED",
    "failed": "FAILED",
    "interrupted": "SCHEDULED",
}
"""A trial's state as the status of its run; the tag `clinie.state` says it in the ledger's own word."""

OnPlaced = Callable[[int, dict[str, str]], None]


def params_of(config: TrialConfig) -> list[Param]:
    """A configuration as parameters: each by its path, and the rate and rank that methods share by one name."""
    flat = config.flatten()
    shared = {k: v for k, v in config.finetuning.parameters.items() if k in ("learning_rate", "rank")}
    flat |= {k: v for k, v in shared.items() if k not in flat}
    return [Param(k, str(v)) for k, v in flat.items()][:BATCH_PARAMS]


class Runs:
    """Writes one study's runs.

    Args:
        client: The connection.
        experiment: The study's experiment.
        parent: The study's run.
        tags: Tags of every trial's run.
        facts: The splits that trials use.
        on_placed: Told where a trial is to be found once that is known: ``run_id``, ``checkpoint``.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        parent: str,
        tags: Mapping[str, str],
        facts: list[DatasetFacts],
        on_placed: OnPlaced,
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._parent = parent
        self._tags = dict(tags)
        self._facts = facts
        self._on_placed = on_placed
        self._ids: dict[int, str] = {}
        self._configs: dict[int, TrialConfig] = {}

    def add_config(self, number: int, config: TrialConfig) -> None:
        """Store the configuration of a running trial, so that its events need not parse it."""
        self._configs[number] = config

    def _config(self, event: Event) -> TrialConfig:
        number = event["trial"]
        if number not in self._configs:  # the event was queued by an earlier process
            self._configs[number] = TrialConfig.model_validate(event["config"])
        return self._configs[number]

    def deliver(self, event: Event, again: bool) -> None:
        """Write an event; see :class:`search.tracking.outbox.Outbox`."""
        kind = event["event"]
        if kind == "begin":
            self._begin(event["trial"], event, again=again)
        elif kind == "epoch":
            self._log_epoch(self._run(event["trial"]), event["epoch"], event["metrics"], event["at"])
        elif kind == "end":
            self._end(event["trial"], event)
        elif kind == "drop":
            self._drop(event["trial"])
        else:
            self._close(event)

    def _run(self, number: int) -> str:
        if number not in self._ids:
            found = self._find(number)
            assert found is not None, "a trial's first event opens its run"
            self._ids[number] = found
        return self._ids[number]

    def _find(self, number: int) -> str | None:
        filter_ = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent}' and tags.`clinie.trial` = '{number}'"
        found = self._client.search_runs([self._experiment], filter_, ViewType.ACTIVE_ONLY, 1)
        return str(found[0].info.run_id) if found else None

    def _begin(self, number: int, event: Event, *, again: bool) -> None:
        run_id = event["run_id"] or (self._find(number) if again or event["resumed"] else None)
        if run_id is None:
            run_id = self._create(number, self._config(event))
        else:
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, "clinie.state", "running")
        self._ids[number] = run_id
        if event["epochs"]:  # a driver may have ended between the ledger's record of an epoch and MLflow's
            there = {m.step for m in self._client.get_metric_history(run_id, "train_loss")}
            for epoch, metrics in event["epochs"].items():
                if int(epoch) not in there:
                    self._log_epoch(run_id, int(epoch), metrics, event["at"])
        self._on_placed(number, {"run_id": run_id})

    def _create(self, number: int, config: TrialConfig) -> str:
        name = make_run_name(number, config)
        tags = {
            MLFLOW_PARENT_RUN_ID: self._parent,
            MLFLOW_RUN_NAME: name,
            "clinie.kind": "trial",
            "clinie.trial": str(number),
            "clinie.state": "running",
            "clinie.backbone": config.backbone.name,
            "clinie.architecture": read_architecture(config.backbone),
            "clinie.formulation": format_formulation(config),
            "clinie.finetuning": config.finetuning.name,
            "clinie.config_digest": config.digest(),
            **self._tags,
        }
        run_id = str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)
        self._client.log_batch(run_id, params=params_of(config))
        self._client.log_inputs(run_id, make_dataset_inputs(self._facts))
        return run_id

    def _log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float], at: int) -> None:
        named = {k.replace(SYSTEM, "system/", 1) if k.startswith(SYSTEM) else k: v for k, v in metrics.items()}
        self._client.log_batch(run_id, metrics=[Metric(k, v, at, epoch) for k, v in named.items()])

    def _end(self, number: int, event: Event) -> None:
        run_id, state, at = self._run(number), event["state"], event["at"]
        tags = [RunTag("clinie.state", state)]
        tags += [RunTag("clinie.reason", event["reason"])] if event["reason"] else []
        self._client.log_batch(run_id, tags=tags)
        folder = Path(event["checkpoint"]) if event["checkpoint"] else None
        if folder is not None and folder.is_dir():
            if (folder / COUNTS_FILE).is_file():  # stays with the run even where the weights go
                self._client.log_artifact(run_id, str(folder / COUNTS_FILE))
            if event["keep"]:
                self._on_placed(number, {"checkpoint": self._keep_checkpoint(number, run_id, folder, event)})
            shutil.rmtree(folder)
            with suppress(OSError):  # a resume may need what else is there until the ledger has the trial's end
                folder.parent.rmdir()
        if state == "interrupted":
            self._client.update_run(run_id, status="SCHEDULED")
        else:
            self._client.set_terminated(run_id, STATUS[state], end_time=at)
        self._configs.pop(number, None)

    def _keep_checkpoint(self, number: int, run_id: str, folder: Path, event: Event) -> str:
        """Make a trial's best checkpoint a logged model of its run, with the metrics that it reached.

        Returns:
            The URI of its artifacts.
        """
        config = self._config(event)
        model = self._logged_model(run_id) or self._client.create_logged_model(
            self._experiment,
            name=CHECKPOINT,
            source_run_id=run_id,
            tags={"clinie.trial": str(number), "clinie.config_digest": config.digest()},
            params={p.key: p.value for p in params_of(config)},
            model_type=config.task,
        )
        self._client.log_model_artifacts(model.model_id, str(folder))
        dev = next((f for f in self._facts if f.split == "dev"), None)
        reached = [
            Metric(
                f"best_{key}",
                value,
                event["at"],
                event["best_epoch"],
                model_id=model.model_id,
                dataset_name=f"{dev.name} {dev.split}" if dev else None,
                dataset_digest=dev.digest if dev else None,
            )
            for key, value in event["best"].items()
            if not key.startswith(SYSTEM)
        ]
        self._client.log_batch(run_id, metrics=reached)
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["best_epoch"])])
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.artifact_location)

    def _logged_model(self, run_id: str) -> LoggedModel | None:
        found = self._client.search_logged_models([self._experiment], f"source_run_id = '{run_id}'", max_results=1)
        return found[0] if found else None

    def _drop(self, number: int) -> None:
        """Remove a trial's logged model, its files first."""
        model = self._logged_model(self._run(number))
        if model is not None:
            get_artifact_repository(model.artifact_location).delete_artifacts()
            self._client.delete_logged_model(model.model_id)
        self._on_placed(number, {"checkpoint": ""})

    def _close(self, event: Event) -> None:
        status, at = event["status"], event["at"]
        numbers = [Metric(k, float(v), at, 0) for k, v in event["summary"].items() if isinstance(v, (int, float))]
        tags = [RunTag(k, str(v)) for k, v in event["summary"].items() if not isinstance(v, (int, float))]
        self._client.log_batch(self._parent, metrics=numbers, tags=[*tags, RunTag(MLFLOW_RUN_NOTE, event["note"])])
        if RunStatus.is_terminated(RunStatus.from_string(status)):
            self._client.set_terminated(self._parent, status, end_time=at)
        else:
            self._client.update_run(self._parent, status=status)
