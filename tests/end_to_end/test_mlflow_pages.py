"""MLflow's pages in a real browser: study, trial, comparison of trials, registered model."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from write_pictures import CHROMIUM, DRIVER, PageBrowser, serve_pages, write_pictures

from search.storage.home import Home

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine (Debian: chromium chromium-driver)"
)


@pytest.fixture(scope="module")
def study_page(home: Path, promoted: dict[str, Any], free_port: Callable[[], int]) -> Iterator[str]:
    """Address that `clinie ui` prints for the home folder with one study, while the server runs."""
    with serve_pages(home, port=free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def open_page(study_page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Function that opens a page, waits for texts, saves a screenshot and returns the page's text."""
    folder = Path(os.environ.get("CLINIE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    browser = PageBrowser(study_page.partition("#")[0] + "#", folder)
    yield browser.open
    browser.close()


@pytest.fixture(scope="module")
def client(home: Path) -> MlflowClient:
    return MlflowClient(Home.open(home).tracking_uri)


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, list[Any]]:
    experiment = client.get_experiment_by_name("small").experiment_id
    found = client.search_runs([experiment])
    return {
        kind: sorted((r for r in found if r.data.tags["clinie.kind"] == kind), key=lambda r: r.info.run_name)
        for kind in ("study", "trial")
    }


def address(run: Any) -> str:
    return f"/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def test_the_first_screen_of_a_study_shows_score_method_and_backbone_of_the_best_trial(
    open_page: Callable[..., str], study_page: str, runs: dict[str, Any]
) -> None:
    best = max(runs["trial"], key=lambda run: run.data.metrics["best/strict_f1"])
    score = f"{best.data.metrics['best/strict_f1']:.4f}"
    text = open_page(study_page.partition("#")[2], "trials", best.info.run_name, score)
    assert "Model training" in text
    assert f"{len(runs['trial'])} matching runs" in text
    lines = text.splitlines()
    names = [line for line in lines if line in {run.info.run_name for run in runs["trial"]}]
    assert names[0] == best.info.run_name
    # The order of the cells in the text is not that of the screen.
    assert {"complete", "minilm", best.data.params["finetuning"]} <= set(lines)


def test_the_charts_of_a_study_compare_its_trials(
    open_page: Callable[..., str], study_page: str, runs: dict[str, Any]
) -> None:
    path = study_page.partition("#")[2] + "&compareRunsMode=CHART"
    text = open_page(path, "charts", "Learning curves", "Comparison of the trials", "Parallel Coordinates")
    assert text.index("Learning curves") < text.index("Comparison of the trials")


def test_the_study_describes_its_search_and_best_trial(open_page: Callable[..., str], runs: dict[str, Any]) -> None:
    (study,) = runs["study"]
    text = open_page(address(study), "study", "Search for the best configuration", "best/strict_f1")
    assert "Best so far: trial" in text
    assert "clinie report small -o report.html" in text


def test_trials_are_grouped_under_their_study(open_page: Callable[..., str], runs: dict[str, Any]) -> None:
    (study,) = runs["study"]
    # The collapsed list shows only the study.
    text = open_page(f"/experiments/{study.info.experiment_id}/runs", "runs", "small", "matching runs")
    assert f"{1 + len(runs['trial'])} matching runs" in text
    assert runs["trial"][0].info.run_name not in text


def test_a_trial_shows_its_configuration_state_and_scores(open_page: Callable[..., str], runs: dict[str, Any]) -> None:
    trial = runs["trial"][0]
    text = open_page(address(trial), "trial", trial.info.run_name, "strict_f1", "clinie.state")
    for expected in ("Parameters", "finetuning", "System metrics", "clinie.architecture", "checkpoint", "train"):
        assert expected in text


def test_a_trials_metrics_have_the_epoch_as_step(open_page: Callable[..., str], runs: dict[str, Any]) -> None:
    open_page(f"{address(runs['trial'][0])}/model-metrics", "curves", "Step", "best", "strict_f1")


def test_trials_can_be_compared_by_typed_parameters(open_page: Callable[..., str], runs: dict[str, Any]) -> None:
    ids = json.dumps([run.info.run_id for run in runs["trial"]])
    experiments = json.dumps([runs["study"][0].info.experiment_id])
    path = f"/compare-runs?runs={urllib.parse.quote(ids)}&experiments={urllib.parse.quote(experiments)}"
    text = open_page(path, "compare", "Parallel Coordinates Plot", "batch_size", "finetuning")
    assert f"Comparing {len(runs['trial'])} Runs from 1 Experiment" in text
    for run in runs["trial"]:
        assert float(run.data.params["learning_rate"]) > 0
        assert int(run.data.params["batch_size"]) > 0


def test_the_best_checkpoints_are_models_with_their_metrics(
    open_page: Callable[..., str], runs: dict[str, Any], client: MlflowClient
) -> None:
    experiment = runs["study"][0].info.experiment_id
    model = client.search_logged_models([experiment], "name = 'checkpoint'")[0]
    text = open_page(f"/experiments/{experiment}/models/{model.model_id}", "model", "best/strict_f1", "Source run")
    assert " dev (#" in text


def test_the_registered_model_has_its_champion(open_page: Callable[..., str], promoted: dict[str, Any]) -> None:
    text = open_page("/models/tiny-model", "registered-model", "champion", f"Version {promoted['version']}")
    assert "tiny-model" in text
    version = open_page(f"/models/tiny-model/versions/{promoted['version']}", "version", "clinie.test_strict_f1")
    assert "small" in version


def test_the_pictures_of_the_documentation_are_small(home: Path, promoted: dict[str, Any], tmp_path: Path) -> None:
    write_pictures(home, "small", tmp_path, "tiny-model")
    sizes = {file.stem: file.stat().st_size for file in tmp_path.glob("*.png")}
    assert set(sizes) == {"mlflow-trials", "mlflow-charts", "mlflow-trial", "mlflow-model", "report", "report-errors"}
    assert max(sizes.values()) < 150_000
