"""The view of a study's trials in MLflow's pages: columns, order and charts, stored as a shared view.

MLflow stores a shared view as a tag of the experiment: a JSON object with a name and the state of the page, which is
JSON compressed by zlib. ``viewStateShareKey`` in a page's address selects the view. MLflow does not document the
format; the version that was read is 3.17. A browser test opens the page.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mlflow.tracking import MlflowClient

from search.tracking.metric_names import name_metric, name_objective

__all__ = ["StudyView", "find_experiment", "has_view", "make_overview_path", "make_study_path"]

KEY = "clinie"
TAG = f"mlflow.sharedViewState.{KEY}"
WORKFLOW = ("workflowType", "machine_learning")
"""Part of an address that selects MLflow's pages for model training instead of those for generative AI."""
SECTIONS = {"curves": "Learning curves", "comparison": "Comparison of the trials"}
COSTS = ("trainable_parameters", "seconds", "peak_memory_mb")


@dataclass(frozen=True)
class StudyView:
    """View of the trials of one study.

    Args:
        objectives: Metrics of the study's objectives, as in the ledger; the first one orders the trials.
        ascending: Whether the first objective is minimized.
        params: MLflow parameters of the searched dimensions.
        flat_names: Whether the runs have the names of metrics of earlier versions, such as ``strict_f1``.
    """

    objectives: Sequence[str] = ("strict_f1",)
    ascending: bool = False
    params: Sequence[str] = ()
    flat_names: bool = False

    def store(self, client: MlflowClient, experiment: str) -> None:
        """Store the view in an experiment, unless the stored view is equal."""
        found = client.get_experiment(experiment).tags.get(TAG)
        text = json.dumps(self._make_state(), separators=(",", ":"))
        state = "deflate;" + base64.b64encode(zlib.compress(text.encode())).decode()
        if found is None or json.loads(found)["state"] != state:
            now = int(time.time() * 1000)
            view = {"name": "Trials", "createdAt": now, "updatedAt": now, "state": state}
            client.set_experiment_tag(experiment, TAG, json.dumps(view))

    def _make_state(self) -> dict[str, Any]:
        order = _column("metrics", self._name_objective(self.objectives[0]))
        columns = self._list_columns()
        charts = [*self._make_curves(), *self._make_comparisons()]
        return {
            "searchFilter": "tags.`clinie.kind` = 'trial'",
            "orderByKey": order,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": columns,
            "columnOrder": columns,
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": charts,
            "compareRunSections": [
                {"uuid": uuid, "name": name, "display": True, "isReordered": True, "columns": 2, "cardHeight": 420}
                for uuid, name in SECTIONS.items()
            ],
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
            "groupBy": None,
        }

    def _name(self, metric: str) -> str:
        return metric if self.flat_names else name_metric(metric)

    def _name_objective(self, metric: str) -> str:
        return metric if self.flat_names else name_objective(metric)

    def _list_columns(self) -> list[str]:
        costs = [metric for metric in COSTS[:2] if metric not in self.objectives]
        return [  # what identifies a trial comes first, because MLflow's assistant covers the right third at first
            *(_column("metrics", self._name_objective(metric)) for metric in self.objectives),
            *(_column("params", name) for name in ("backbone", "finetuning", "rank", "learning_rate")),
            *(_column("tags", name) for name in ("clinie.state", "clinie.epochs")),
            *(_column("metrics", self._name(metric)) for metric in costs),
        ]

    def _make_curves(self) -> Iterable[dict[str, Any]]:
        for name in dict.fromkeys([self._name(self.objectives[0]), self._name("train_loss")]):
            # MLflow smooths lines by default, so that they do not pass through the scores.
            exact = {"lineSmoothness": 0, "useGlobalLineSmoothing": False}
            yield _make_chart("LINE", name, "curves", metricKey=name, selectedMetricKeys=[name], **exact)

    def _make_comparisons(self) -> Iterable[dict[str, Any]]:
        objective = self._name_objective(self.objectives[0])
        if self.params:
            yield _make_chart(
                "PARALLEL",
                "dimensions",
                "comparison",
                selectedParams=list(self.params),
                selectedMetrics=[objective],
                showAllRuns=True,
            )
        for cost in map(self._name, COSTS):
            if cost != objective:
                axes = {"xaxis": {"key": cost, "type": "METRIC"}, "yaxis": {"key": objective, "type": "METRIC"}}
                yield _make_chart("SCATTER", cost, "comparison", **axes)


def find_experiment(client: MlflowClient, study: str) -> str | None:
    """Return the id of a study's experiment; None if MLflow has no such experiment."""
    found = client.get_experiment_by_name(study)
    return str(found.experiment_id) if found is not None else None


def has_view(client: MlflowClient, experiment: str) -> bool:
    """Return whether an experiment has the view of its study, which earlier versions do not store."""
    return TAG in client.get_experiment(experiment).tags


def make_study_path(experiment: str) -> str:
    """Return the path of a study's page, with its view, within MLflow's pages."""
    return f"/#/experiments/{experiment}/runs?{urlencode([WORKFLOW, ('viewStateShareKey', KEY)])}"


def make_overview_path() -> str:
    """Return the path of the list of all studies within MLflow's pages."""
    return f"/#/experiments?{urlencode([WORKFLOW])}"


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _make_chart(kind: str, name: str, section: str, **settings: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"clinie-{kind.lower()}-{name}",
        "metricSectionId": section,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }
