"""One study in MLflow, as its search goes on: events out, through an outbox that outlasts a server's absence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from clinie_core.config import TrialConfig
from search.storage.home import Home
from search.tracking.connection import code_version, get_or_create_experiment, is_unreachable
from search.tracking.datasets import DatasetFacts, make_dataset_inputs
from search.tracking.outbox import Outbox
from search.tracking.runs import OnPlaced, Runs
from search.trials.listener import TrialListener
from search.trials.result import EpochResult

__all__ = ["StudyFacts", "Tracker"]

GOODBYE_SECONDS = 60.0
"""How long the end of a search waits for a server that is away."""


@dataclass(frozen=True)
class StudyFacts:
    """What MLflow is told of a study as a whole.

    Args:
        study: Its name, which is also its experiment's.
        tags: Tags of its run.
        datasets: The splits that it reads.
    """

    study: str
    tags: Mapping[str, str]
    datasets: list[DatasetFacts]


class Tracker(TrialListener):
    """Writer of a study's MLflow runs.

    As a listener it writes each epoch. The checkpoint manager starts and ends the runs of trials, since it decides
    which checkpoints are uploaded.

    Args:
        client: The connection.
        home: Where artifacts go, and what waits for the server.
        facts: The study.
        on_placed: Told where a trial is to be found once that is known, at once or when the server is back.
    """

    def __init__(self, client: MlflowClient, home: Home, facts: StudyFacts, on_placed: OnPlaced) -> None:
        self._client = client
        experiment = get_or_create_experiment(client, home, facts.study)
        corpus = {k: v for k, v in facts.tags.items() if k in ("clinie.corpus", "clinie.corpus_digest", "clinie.text")}
        trial_tags = {"clinie.study": facts.study, "clinie.code": code_version(), **corpus}
        self.parent = self._parent_run(experiment, facts)
        self._runs = Runs(client, experiment, self.parent, trial_tags, facts.datasets, on_placed)
        self._outbox = Outbox(home.study_folder(facts.study) / "outbox.jsonl", self._runs.deliver, is_unreachable)
        self._outbox.flush()

    def _parent_run(self, experiment: str, facts: StudyFacts) -> str:
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
        tags = {"clinie.kind": "study", "clinie.study": facts.study, "clinie.code": code_version(), **facts.tags}
        run_id = str(self._client.create_run(experiment, run_name=facts.study, tags=tags).info.run_id)
        self._client.log_inputs(run_id, make_dataset_inputs(facts.datasets))
        return run_id

    def begin(
        self, number: int, config: TrialConfig, run_id: str | None, epochs: Mapping[int, Mapping[str, float]]
    ) -> None:
        """Open a trial's run, the same one if the trial goes on.

        Args:
            number: The trial.
            config: What it trains.
            run_id: Its run, if the ledger knows it.
            epochs: What the ledger has of it already; what MLflow lacks of that is written.
        """
        self._runs.add_config(number, config)
        self._outbox.put(
            {
                "event": "begin",
                "trial": number,
                "config": config.model_dump(mode="json"),
                "run_id": run_id,
                "resumed": bool(epochs),
                "epochs": {str(epoch): dict(metrics) for epoch, metrics in epochs.items()},
                "at": _now(),
            }
        )

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Write an epoch's metrics, with the epoch as their step."""
        epoch, metrics = result.epoch, dict(result.metrics)
        self._outbox.put({"event": "epoch", "trial": number, "epoch": epoch, "metrics": metrics, "at": _now()})

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
    ) -> None:
        """Close a trial's run.

        Args:
            number: The trial.
            state: How the ledger has it.
            config: What it trained.
            reason: Why it failed, without document text.
            best: The metrics of its best epoch.
            best_epoch: Which that was.
            checkpoint: Its best checkpoint; removed once MLflow has what is kept of it.
            keep: Whether its weights are kept; its counts by document always are.
        """
        self._outbox.put(
            {
                "event": "end",
                "trial": number,
                "state": state,
                "config": config.model_dump(mode="json"),
                "reason": reason,
                "best": dict(best),
                "best_epoch": best_epoch,
                "checkpoint": str(checkpoint) if checkpoint else None,
                "keep": keep,
                "at": _now(),
            }
        )

    def drop(self, number: int) -> None:
        """Remove the weights that are kept of a trial; its run stays."""
        self._outbox.put({"event": "drop", "trial": number, "at": _now()})

    def close(self, status: str, summary: Mapping[str, Any], note: str) -> int:
        """Close the study's run.

        Args:
            status: One of MLflow's run statuses.
            summary: Numbers become metrics, anything else tags.
            note: Its description, in Markdown.

        Returns:
            How many events still wait for the server; a resume of the study sends them.
        """
        self._outbox.put({"event": "close", "status": status, "summary": dict(summary), "note": note, "at": _now()})
        self._outbox.drain(GOODBYE_SECONDS)
        return len(self._outbox)


def _now() -> int:
    """Milliseconds since 1970; taken when an event happens, so that a second delivery is the same event."""
    return int(time.time() * 1000)
