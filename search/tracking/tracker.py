"""Writer of a running study to MLflow, through an outbox whose thread delivers the events in batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from clinie_core.config import Selection, TrialConfig, rate_epoch
from search.ledger.storage import LedgerUnavailable
from search.storage.home import Home
from search.tracking.connection import get_code_version, get_or_create_experiment, is_unreachable
from search.tracking.datasets import DatasetFacts, make_dataset_inputs
from search.tracking.outbox import Outbox
from search.tracking.runs import LocationCallback, Runs
from search.tracking.study_view import StudyView
from search.trials.listener import TrialListener
from search.trials.result import EpochResult

__all__ = ["StudyFacts", "Tracker"]

LIMITS_FILE = "representable.json"
"""Artifact of a study's run with the concepts that its formulations can express."""
CLOSE_SECONDS = 60.0
"""Maximum time that the end of a search waits for a server that accepts no event."""


@dataclass(frozen=True)
class StudyFacts:
    """Description of a study for its MLflow run.

    Args:
        study: Name of the study and of its experiment.
        tags: Tags of its run.
        datasets: Splits that it reads.
        view: View of its trials in MLflow's pages.
        limits: Concepts that each formulation can express, by split, type and reason; a row for each formulation.
    """

    study: str
    tags: Mapping[str, str]
    datasets: list[DatasetFacts]
    view: StudyView = field(default_factory=StudyView)
    limits: Sequence[Mapping[str, Any]] = ()


@dataclass
class _Curve:
    """Epochs of a running trial so far: the number of the last one, and the metrics of the best one."""

    selection: Selection
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch; a repeated one has no effect."""
        if epoch <= self.epoch:
            return
        self.epoch = epoch
        if not self.best or rate_epoch(metrics, self.selection) > rate_epoch(self.best, self.selection):
            self.best = dict(metrics)


class Tracker(TrialListener):
    """Writer of a study's MLflow runs.

    As a listener it writes each epoch. The checkpoint manager starts and ends the runs of trials, since it decides
    which checkpoints are uploaded.

    Args:
        client: The MLflow client.
        home: Home folder of the artifacts and of the outbox.
        facts: Description of the study.
        on_location: Called with a trial's number and its ``run_id`` or ``checkpoint`` once this is known, in the
            thread of the outbox. The trial may have ended by then.
    """

    def __init__(self, client: MlflowClient, home: Home, facts: StudyFacts, on_location: LocationCallback) -> None:
        self._client = client
        experiment = get_or_create_experiment(client, home, facts.study)
        corpus = {k: v for k, v in facts.tags.items() if k in ("clinie.corpus", "clinie.corpus_digest", "clinie.text")}
        trial_tags = {"clinie.study": facts.study, "clinie.code": get_code_version(), **corpus}
        facts.view.store(client, experiment)
        self.parent = self._get_or_create_parent(experiment, facts)
        self._runs = Runs(
            client, experiment, self.parent, trial_tags, facts.datasets, facts.view.objectives[0], on_location
        )
        self._curves: dict[int, _Curve] = {}
        self._is_unavailable = False
        """Whether the server accepted no event during the last wait."""
        self._outbox = Outbox(home.study_folder(facts.study) / "outbox.jsonl", self._runs.deliver, _can_retry)

    def _get_or_create_parent(self, experiment: str, facts: StudyFacts) -> str:
        found = self._client.search_runs(
            [experiment],
            f"tags.clinie.kind = 'study' and tags.clinie.study = '{facts.study}'",
            ViewType.ACTIVE_ONLY,
            1,
        )
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {"clinie.kind": "study", "clinie.study": facts.study, "clinie.code": get_code_version(), **facts.tags}
        run_id = str(self._client.create_run(experiment, run_name=facts.study, tags=tags).info.run_id)
        self._client.log_inputs(run_id, make_dataset_inputs(facts.datasets))
        if facts.limits:
            self._client.log_dict(run_id, {"formulations": list(facts.limits)}, LIMITS_FILE)
        return run_id

    def begin(
        self,
        number: int,
        config: TrialConfig,
        run_id: str | None,
        epochs: Mapping[int, Mapping[str, float]],
        *,
        resumed: bool = False,
    ) -> None:
        """Open a trial's run, or reopen it if the trial is resumed.

        Args:
            number: Number of the trial.
            config: Its configuration.
            run_id: Id of its run, if the ledger has it.
            epochs: Metrics of its recorded epochs; those that MLflow lacks are written.
            resumed: Whether an earlier driver has started the trial. It may have created a run that the ledger lacks.
        """
        self._curves[number] = curve = _Curve(config.selection)
        for epoch in sorted(epochs):
            curve.add(epoch, epochs[epoch])
        self._outbox.put(
            {
                "event": "begin",
                "trial": number,
                "config": config.model_dump(mode="json"),
                "run_id": run_id,
                "resumed": resumed or bool(epochs),
                "epochs": {str(epoch): dict(metrics) for epoch, metrics in epochs.items()},
                "at": _now(),
            }
        )

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Write an epoch's metrics with the epoch as step."""
        curve = self._curves.get(number)
        if curve is not None:
            curve.add(result.epoch, result.metrics)
        self._outbox.put(
            {
                "event": "epoch",
                "trial": number,
                "epoch": result.epoch,
                "metrics": dict(result.metrics),
                "best": curve.best if curve else {},
                "at": _now(),
            }
        )

    def end(
        self,
        number: int,
        state: str,
        *,
        config: TrialConfig,
        reason: str | None,
        best: Mapping[str, float],
        best_epoch: int | None,
        checkpoint: Path | None,
        keep: bool,
        usage: Mapping[str, float] | None = None,
    ) -> None:
        """Close a trial's run.

        Args:
            number: Number of the trial.
            state: Its state in the ledger.
            config: Its configuration.
            reason: Reason of a failure, without document text.
            best: Metrics of its best epoch.
            best_epoch: 1-based number of that epoch.
            checkpoint: Folder of its best checkpoint, which is deleted after the upload.
            keep: Whether its weights are uploaded; its counts by document always are.
            usage: GPU-hours and money of the trial, by metric.
        """
        curve = self._curves.pop(number, None)
        self._outbox.put(
            {
                "event": "end",
                "trial": number,
                "state": state,
                "config": config.model_dump(mode="json"),
                "reason": reason,
                "best": dict(best),
                "best_epoch": best_epoch,
                "epochs": curve.epoch if curve else None,
                "checkpoint": str(checkpoint) if checkpoint else None,
                "keep": keep,
                "usage": dict(usage or {}),
                "at": _now(),
            }
        )

    def drop(self, number: int) -> None:
        """Delete the uploaded weights of a trial, but not its run."""
        self._outbox.put({"event": "drop", "trial": number, "at": _now()})

    def add_command(self, id_: str, trial: int | None, text: str) -> None:
        """Write a command to the search as a tag of the study's run, and of the trial's run if it names one.

        Args:
            id_: Id of the command; a second call with the same values has no further effect.
            trial: Number of the trial; None for the whole search.
            text: The command and the decision on it.
        """
        self._outbox.put({"event": "command", "id": id_, "trial": trial, "text": text, "at": _now()})

    def close(self, status: str, summary: Mapping[str, Any], note: str) -> None:
        """Close the study's run.

        Args:
            status: An MLflow run status.
            summary: Results; numbers become metrics, other values tags.
            note: Description of the run in Markdown.
        """
        self._outbox.put({"event": "close", "status": status, "summary": dict(summary), "note": note, "at": _now()})

    def drain(self, seconds: float = CLOSE_SECONDS) -> int:
        """Wait until all events are delivered, so that the ledger has the locations of all results.

        Args:
            seconds: Maximum time in seconds without a delivery. After it has passed once, a call does not wait.

        Returns:
            Number of events that still wait for the server; resuming the study sends them.
        """
        self._is_unavailable = not self._outbox.drain(0.0 if self._is_unavailable else seconds)
        return len(self._outbox)

    def stop(self) -> None:
        """End the thread that delivers events; a later process delivers those that wait."""
        self._outbox.stop()


def _can_retry(error: Exception) -> bool:
    """Return whether an event with this error can be delivered later."""
    return is_unreachable(error) or isinstance(error, LedgerUnavailable)


def _now() -> int:
    """Return the time in milliseconds since 1970.

    It is part of an event, so that a second delivery is identical.
    """
    return int(time.time() * 1000)
