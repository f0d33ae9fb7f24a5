"""Conversion of a study's events to MLflow runs; delivering an event twice has no further effect."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from clinie_core.backbones.facts import read_architecture
from clinie_core.config import TrialConfig, rate_epoch
from clinie_core.scoring.document_counts import FILE as COUNTS_FILE
from clinie_core.scoring.error_counts import FILE as ERRORS_FILE
from clinie_core.scoring.error_counts import ErrorCounts
from clinie_core.scoring.scores import Counts
from search.config.description import format_formulation, make_run_name
from search.tracking.datasets import DatasetFacts, make_dataset_inputs
from search.tracking.metric_names import OLD_TRAIN_LOSS, TRAIN_LOSS, name_best, name_metric, name_type_metric
from search.tracking.outbox import Event
from search.tracking.run_notes import TrialEnd, compute_interval, describe_trial

__all__ = ["BATCH_METRICS", "CHECKPOINT", "Runs", "make_params"]

CHECKPOINT = "checkpoint"
BATCH_PARAMS = 100
BATCH_METRICS = 1000
STATUS = {
    "complete": "FINISHED",
    "pruned": "FINISHED",  # MLflow's pages mark KILLED like an error
    "infeasible": "FAILED",
    "failed": "FAILED",
    "interrupted": "SCHEDULED",
    "paused": "SCHEDULED",
}
"""Status of a run by the state of its trial; the tag ``clinie.state`` holds the state itself."""

LocationCallback = Callable[[int, dict[str, str]], None]


def make_params(config: TrialConfig) -> list[Param]:
    """Return a configuration as MLflow parameters, named by key path.

    The learning rate and rank, which several methods have, also get a common name. MLflow's tables show the common
    ones, so they are rounded to four digits.
    """
    flat = config.flatten()
    shared = {k: v for k, v in config.finetuning.parameters.items() if k in ("learning_rate", "rank")}
    flat |= {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in shared.items() if k not in flat}
    return [Param(k, str(v)) for k, v in flat.items()][:BATCH_PARAMS]


@dataclass
class _Entries:
    """Entries of a run that are written together."""

    metrics: list[Metric] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


class Runs:
    """Writer of one study's runs.

    Args:
        client: The MLflow client.
        experiment: Id of the study's experiment.
        parent: Id of the study's run.
        tags: Tags of all trial runs.
        facts: The splits that trials use.
        objective: Metric of the study's first objective.
        on_location: Called with a trial's number and its ``run_id`` or ``checkpoint`` once this is known.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        parent: str,
        tags: Mapping[str, str],
        facts: list[DatasetFacts],
        objective: str,
        on_location: LocationCallback,
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._parent = parent
        self._tags = dict(tags)
        self._facts = facts
        self._objective = objective
        self._on_location = on_location
        self._ids: dict[int, str] = {}
        self._entries: defaultdict[str, _Entries] = defaultdict(_Entries)
        """Entries that the events of the present batch add to each run."""

    def deliver(self, events: Sequence[Event], again: bool) -> None:
        """Write a batch of events; see :class:`search.tracking.outbox.Outbox`."""
        self._entries.clear()  # of a batch that could not be delivered
        for event in events:
            self._deliver_event(event, again=again)
        for run_id in list(self._entries):
            self._write(run_id)

    def _write(self, run_id: str) -> None:
        """Write the entries that were added to a run."""
        entries = self._entries.pop(run_id, _Entries())
        tags, params = [RunTag(k, v) for k, v in entries.tags.items()], list(entries.params)
        for start in range(0, max(len(entries.metrics), 1), BATCH_METRICS - len(tags) - len(params)):
            metrics = entries.metrics[start : start + BATCH_METRICS - len(tags) - len(params)]
            if metrics or (start == 0 and (tags or params)):
                self._client.log_batch(run_id, metrics, params if start == 0 else (), tags if start == 0 else ())

    def _deliver_event(self, event: Event, *, again: bool) -> None:
        kind = event["event"]
        if kind == "begin":
            self._begin_trial(event["trial"], event, again=again)
        elif kind == "epoch":
            run_id = self._get_run_id(event["trial"])
            self._add_epoch(run_id, event["epoch"], event["metrics"], event.get("best", {}), event["at"])
        elif kind == "end":
            self._end_trial(event["trial"], event)
        elif kind == "drop":
            self._delete_checkpoint(event["trial"])
        elif kind == "command":
            self._tag_command(event)
        else:
            self._close_study(event)

    def _get_run_id(self, number: int) -> str:
        if number not in self._ids:
            found = self._find_run(number)
            assert found is not None, "the first event of a trial creates its run"
            self._ids[number] = found
        return self._ids[number]

    def _find_run(self, number: int) -> str | None:
        filter_ = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent}' and tags.`clinie.trial` = '{number}'"
        found = self._client.search_runs([self._experiment], filter_, ViewType.ACTIVE_ONLY, 1)
        return str(found[0].info.run_id) if found else None

    def _begin_trial(self, number: int, event: Event, *, again: bool) -> None:
        run_id = event["run_id"] or (self._find_run(number) if again or event["resumed"] else None)
        config = TrialConfig.model_validate(event["config"])
        is_new = run_id is None
        if run_id is None:
            run_id = self._create_run(number, config)
        else:
            self._client.update_run(run_id, status="RUNNING")
            self._entries[run_id].tags["clinie.state"] = "running"
            self._write(run_id)  # before its metrics are read
        self._ids[number] = run_id
        if is_new or not self._client.get_run(run_id).data.params:  # a process ended between these writes
            self._entries[run_id].params = make_params(config)
            self._client.log_inputs(run_id, make_dataset_inputs(self._facts))
        if event["epochs"]:  # the driver was killed between the ledger's record and MLflow's
            logged = {
                m.step for name in (TRAIN_LOSS, OLD_TRAIN_LOSS) for m in self._client.get_metric_history(run_id, name)
            }
            selection = config.selection
            epochs = {int(epoch): metrics for epoch, metrics in event["epochs"].items()}
            for epoch in sorted(epochs.keys() - logged):
                best = max((epochs[e] for e in sorted(epochs) if e <= epoch), key=lambda m: rate_epoch(m, selection))
                self._add_epoch(run_id, epoch, epochs[epoch], best, event["at"])
        self._on_location(number, {"run_id": run_id})

    def _create_run(self, number: int, config: TrialConfig) -> str:
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
            MLFLOW_RUN_NOTE: describe_trial(
                self._tags["clinie.study"], number, config, self._objective, TrialEnd("running")
            ),
            **self._tags,
        }
        return str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)

    def _add_epoch(
        self, run_id: str, epoch: int, metrics: Mapping[str, float], best: Mapping[str, float], at: int
    ) -> None:
        named = {name_metric(k): v for k, v in metrics.items()} | name_best(best)
        self._entries[run_id].metrics += [Metric(k, v, at, epoch) for k, v in named.items()]
        self._entries[run_id].tags["clinie.epochs"] = str(epoch)

    def _end_trial(self, number: int, event: Event) -> None:
        run_id, state, at = self._get_run_id(number), event["state"], event["at"]
        folder = Path(event["checkpoint"]) if event["checkpoint"] else None
        entries = self._entries[run_id]
        entries.tags |= {"clinie.state": state} | ({"clinie.reason": event["reason"]} if event["reason"] else {})
        config = TrialConfig.model_validate(event["config"])
        if folder is None or folder.is_dir():  # otherwise an earlier delivery has written the description
            entries.tags[MLFLOW_RUN_NOTE] = self._describe_end(number, config, event, folder)
        entries.metrics += [Metric(k, v, at, event["best_epoch"] or 0) for k, v in _read_type_metrics(folder).items()]
        entries.metrics += [Metric(f"usage/{name}", value, at, 0) for name, value in event.get("usage", {}).items()]
        self._write(run_id)
        if folder is not None and folder.is_dir():
            for name in (COUNTS_FILE, ERRORS_FILE):  # stored even if the weights are not
                if (folder / name).is_file():
                    self._client.log_artifact(run_id, str(folder / name))
            if event["keep"]:
                self._on_location(number, {"checkpoint": self._upload_checkpoint(config, run_id, folder, event)})
            shutil.rmtree(folder)
            with suppress(OSError):  # a resume may need other files until the ledger has recorded the end
                folder.parent.rmdir()
        if STATUS[state] == "SCHEDULED":
            self._client.update_run(run_id, status=STATUS[state])
        else:
            self._client.set_terminated(run_id, STATUS[state], end_time=at)

    def _describe_end(self, number: int, config: TrialConfig, event: Event, checkpoint: Path | None) -> str:
        end = TrialEnd(
            event["state"],
            event.get("epochs"),
            event["reason"],
            event["best_epoch"],
            event["best"].get(self._objective),
            compute_interval(checkpoint, self._objective) if checkpoint else None,
        )
        return describe_trial(self._tags["clinie.study"], number, config, self._objective, end)

    def _upload_checkpoint(self, config: TrialConfig, run_id: str, folder: Path, event: Event) -> str:
        """Upload a trial's best checkpoint as a logged model of its run, with its metrics.

        Returns:
            The URI of its artifacts.
        """
        model = self._find_logged_model(run_id) or self._client.create_logged_model(
            self._experiment,
            name=CHECKPOINT,
            source_run_id=run_id,
            tags={"clinie.trial": str(event["trial"]), "clinie.config_digest": config.digest()},
            params={p.key: p.value for p in make_params(config)},
            model_type=config.task,
        )
        self._client.log_model_artifacts(model.model_id, str(folder))
        dev = next((f for f in self._facts if f.split == "dev"), None)
        metrics = [
            Metric(
                name,
                value,
                event["at"],
                event["best_epoch"],
                model_id=model.model_id,
                dataset_name=f"{dev.name} {dev.split}" if dev else None,
                dataset_digest=dev.digest if dev else None,
            )
            for name, value in name_best(event["best"]).items()
        ]
        self._client.log_batch(run_id, metrics=metrics)
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["best_epoch"])])
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.artifact_location)

    def _find_logged_model(self, run_id: str) -> LoggedModel | None:
        found = self._client.search_logged_models([self._experiment], f"source_run_id = '{run_id}'", max_results=1)
        return found[0] if found else None

    def _delete_checkpoint(self, number: int) -> None:
        """Delete a trial's logged model, its files first."""
        model = self._find_logged_model(self._get_run_id(number))
        if model is not None:
            get_artifact_repository(model.artifact_location).delete_artifacts()
            self._client.delete_logged_model(model.model_id)
        self._on_location(number, {"checkpoint": ""})

    def _tag_command(self, event: Event) -> None:
        """Tag the study's run with a command and the decision on it, and the run of the trial that it names."""
        trial = event["trial"]
        run_ids = [self._parent, self._find_run(trial) if trial is not None else None]
        for run_id in filter(None, run_ids):
            self._entries[run_id].tags[f"clinie.command.{event['id']}"] = event["text"]

    def _close_study(self, event: Event) -> None:
        status, at = event["status"], event["at"]
        numbers = [Metric(k, float(v), at, 0) for k, v in event["summary"].items() if isinstance(v, (int, float))]
        tags = [RunTag(k, str(v)) for k, v in event["summary"].items() if not isinstance(v, (int, float))]
        self._client.log_batch(self._parent, metrics=numbers, tags=[*tags, RunTag(MLFLOW_RUN_NOTE, event["note"])])
        if RunStatus.is_terminated(RunStatus.from_string(status)):
            self._client.set_terminated(self._parent, status, end_time=at)
        else:
            self._client.update_run(self._parent, status=status)


def _read_type_metrics(folder: Path | None) -> dict[str, float]:
    """Return the dev scores by type from a checkpoint's folder; none if the folder has no counts."""
    if folder is None or not (folder / ERRORS_FILE).is_file():
        return {}
    errors = ErrorCounts.read(folder)
    metrics = {}
    for type_ in sorted(errors.types):
        counts = Counts(*errors.expand(type_).sum(axis=0).tolist())
        for rate in ("f1", "precision", "recall"):
            metrics[name_type_metric(type_, rate)] = float(getattr(counts, rate))
    return metrics
