"""The Python API of `search`: names, a study that is run, reopened, reported, compared, repeated and extended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import search
from clinie_core.errors import InputError

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteSpace = Callable[[Mapping[str, Any]], Path]
COLUMNS = [
    *("number", "state", "strict_f1", "configuration", "epochs", "best_epoch", "train_seconds"),
    *("started", "ended", "reason", "checkpoint", "run_id"),
]
OVERRIDES = {"budget.trials": 2, "budget.epochs": 1, "algorithm.scheduler": "none", "space.finetuning": "full"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "home"


@pytest.fixture
def study(home: Path, space_content: dict[str, Any], write_space: WriteSpace) -> search.Study:
    """A finished study of two trials, run by the first test that needs it."""
    if home.exists():
        return search.load_study("small", home=home)
    return search.run(write_space(space_content), overrides=OVERRIDES, home=home)


def test_the_public_names_are_listed_and_exist() -> None:
    assert set(search.__all__) == {"Study", "__version__", "list_studies", "load_study", "plan", "run"}
    assert set(search.__all__) <= set(dir(search))
    assert all(getattr(search, name) for name in search.__all__)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = search.runn  # type: ignore[attr-defined]


def test_importing_search_imports_no_heavy_package() -> None:
    program = "import search, sys; print({'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_trials_are_a_data_frame_with_one_row_per_trial(study: search.Study) -> None:
    trials = study.trials
    assert isinstance(trials, pd.DataFrame)
    assert list(trials.columns[: len(COLUMNS)]) == COLUMNS
    assert "params.finetuning.full.learning_rate" in trials.columns
    assert list(trials["number"]) == [0, 1]
    assert set(trials["state"]) == {"complete"}
    assert trials["strict_f1"].between(0, 1).all()
    assert (trials["train_seconds"] > 0).all()
    assert (trials["epochs"] == 1).all()
    assert all(text.startswith("tiny token_classification full") for text in trials["configuration"])


def test_best_is_the_trial_with_the_highest_score(study: search.Study) -> None:
    trials, best = study.trials, study.best
    assert best is not None
    assert best.metrics["strict_f1"] == trials["strict_f1"].max()
    assert best.config is not None
    assert best.config.finetuning.name == "full"
    assert (study.metric, study.is_maximized, study.is_running) == ("strict_f1", True, False)


@pytest.mark.usefixtures("study")
def test_an_opened_study_equals_the_one_that_ran(home: Path, clinie: RunClinie) -> None:
    loaded = search.load_study("small", home=str(home))
    assert search.list_studies(home)[0] == "small"
    assert repr(loaded) == f"Study('small', home='{home}')"
    assert loaded.space.budget.trials >= 2
    shown = json.loads(clinie("status", "small", "--home", home, "--json").stdout)
    assert [trial["number"] for trial in shown["trials"]] == list(loaded.trials["number"])
    assert loaded.best is not None
    score = loaded.best.metrics["strict_f1"]
    seeds = {"seed_scores": [score], "mean": score, "standard_deviation": None}
    assert shown["best"] == loaded.best.as_json() | seeds


def test_a_report_is_data_and_a_page(study: search.Study, tmp_path: Path) -> None:
    report = study.report(tmp_path / "pages" / "report.html")
    assert report.as_json()["study"] == "small"
    assert "<html" in (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")


def test_a_dry_run_of_a_promotion_judges_the_best_trial(study: search.Study, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\n")
    promotion = study.promote("api-model", policy=policy, dry_run=True)
    assert study.best is not None
    assert promotion.candidate.trial == study.best.number
    assert promotion.version is None
    assert 0 <= promotion.decision.test["strict_f1"] <= 1
    with pytest.raises(InputError, match="study 'small' has no trial 7"):
        study.promote("api-model", trial=7)


def test_a_repeated_trial_is_a_study_of_its_own_that_can_be_compared(study: search.Study) -> None:
    repeated = study.repeat_trial(0, seed=99)
    assert repeated.name == "small-trial-0-seed-99"
    assert repeated.outcome is not None
    assert [record.state for record in repeated.outcome.trials] == ["complete"]
    assert study.compare(repeated).studies == ("small", "small-trial-0-seed-99")
    with pytest.raises(InputError, match="study 'small' has no trial 7"):
        study.repeat_trial(7)


def test_an_extended_study_has_more_trials(study: search.Study) -> None:
    extended = study.extend(1)
    assert extended is study
    assert study.outcome is not None
    assert len(study.trials) == 3
    assert study.space.budget.trials == 3


def test_unknown_studies_and_folders_are_input_errors(study: search.Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study 'other'"):
        search.load_study("other", home=study.home.root)
    with pytest.raises(InputError, match="no folder"):
        search.load_study("small", home=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder"):
        search.list_studies(tmp_path / "nowhere")


def test_a_study_of_the_same_name_is_refused(
    study: search.Study, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    with pytest.raises(InputError, match="study 'small' exists"):
        search.run(write_space(space_content), OVERRIDES, home=study.home.root)


def test_an_invalid_space_creates_no_home_folder(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="unknown sampler"):
        search.run(write_space(space_content), ["algorithm.sampler=tep"], home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_plan_draws_configurations_without_training(space_content: dict[str, Any], write_space: WriteSpace) -> None:
    planned = search.plan(write_space(space_content), {"space.finetuning": "full"}, samples=3)
    assert planned.configurations is None
    assert planned.dimensions["batch_size"] == "choose 8, 16 (prior 8)"
    assert len(planned.samples) == len(planned.sizes) == 3
    assert planned.note == ""
