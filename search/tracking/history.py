"""Winners of the earlier studies that MLflow has, such as those of other home folders with the same server."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from clinie_core.config import Task
from search.config.objectives import Objective
from search.ledger.winners import CorpusIdentity, Winner

__all__ = ["find_winners", "make_history_tags"]

TASK, OBJECTIVE, DIGEST, DOCUMENTS = "clinie.task", "clinie.objective", "clinie.corpus_digest", "clinie.documents"
"""Tags of a study's run that the searches of later studies read."""
MOST_STUDIES = 50
"""Number of studies, the latest ones, whose winners are considered."""


def make_history_tags(task: Task, objective: Objective, corpus: CorpusIdentity) -> dict[str, str]:
    """Return the tags of a study's run that the searches of later studies read."""
    return {
        TASK: task,
        OBJECTIVE: f"{objective.direction} {objective.metric}",
        DIGEST: corpus.digest,
        DOCUMENTS: ",".join(sorted(corpus.documents)),
    }


def find_winners(client: MlflowClient, task: Task, objective: Objective, corpus: CorpusIdentity) -> list[Winner]:
    """Return the winners of earlier studies of a task with the same first objective on other corpora.

    A study of the same corpus, or of one that shares documents with it, is left out. So is a study of an earlier
    version of clinie, which has not stored the digests of its documents.

    Args:
        client: The MLflow client.
        task: Task of the new study.
        objective: Its first objective.
        corpus: Its corpus.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = make_history_tags(task, objective, corpus)
    conditions = {"clinie.kind": "study", TASK: wanted[TASK], OBJECTIVE: wanted[OBJECTIVE]}
    filter_ = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in conditions.items())
    studies = client.search_runs(
        experiments, filter_, ViewType.ACTIVE_ONLY, MOST_STUDIES, order_by=["attributes.start_time DESC"]
    )
    return list(_list_winners(client, studies, corpus))


def _list_winners(client: MlflowClient, studies: list[Run], corpus: CorpusIdentity) -> Iterator[Winner]:
    for study in studies:
        tags: Mapping[str, str] = study.data.tags
        documents = frozenset(filter(None, tags.get(DOCUMENTS, "").split(",")))
        if "clinie.best_trial" not in tags or not documents:
            continue
        if corpus.overlaps(CorpusIdentity(tags.get(DIGEST, ""), documents)):
            continue
        number = tags["clinie.best_trial"]
        filter_ = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{study.info.run_id}' and tags.`clinie.trial` = '{number}'"
        for run in client.search_runs([study.info.experiment_id], filter_, ViewType.ACTIVE_ONLY, 1):
            values = {key: _parse(value) for key, value in run.data.params.items()}
            epochs = int(run.data.tags.get("clinie.epochs", "1"))
            seconds = run.data.metrics.get("train/seconds", 0.0) * epochs
            yield Winner(tags["clinie.study"], int(number), values, seconds, is_in_mlflow=True)


def _parse(value: str) -> Any:
    """Return the value of a parameter, which MLflow stores as text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
