"""Questions that a user asks of a finished study, from the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from search.storage.home import Home

RunClinie = Callable[..., subprocess.CompletedProcess[str]]


def outcome_of(home: Path) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads((home.parent / "outcome.json").read_text())
    return outcome


def test_the_report_uses_the_results_of_the_search(home: Path, tmp_path: Path, clinie: RunClinie) -> None:
    done = clinie("report", "small", "--home", home, "-o", tmp_path / "out" / "report.html", "--json")
    assert done.returncode == 0, done.stderr
    sections = {s["key"]: s for s in json.loads(done.stdout)["sections"]}
    best = outcome_of(home)["best"]
    assert sections["winner"]["answer"].startswith(f"Trial {best['number']} is best with dev strict_f1 ")
    assert "On the same documents, " in sections["winner"]["answer"]  # counts per document were stored and compared
    assert {row["method"] for row in sections["methods"]["rows"]} == {"full", "lora", "ia3"}
    assert len(sections["trials"]["rows"]) == 4
    page = (tmp_path / "out" / "report.html").read_text()
    again = clinie("report", "small", "--home", home, "-o", tmp_path / "out" / "report.html")
    assert again.returncode == 2
    assert "the file exists already" in again.stderr
    assert (tmp_path / "out" / "report.html").read_text() == page
    assert "<script src" not in page
    client = MlflowClient(Home.open(home).tracking_uri)
    (parent,) = client.search_runs([client.get_experiment_by_name("small").experiment_id], "tags.clinie.kind = 'study'")
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "report")] == ["report/report.html"]


def test_the_terminal_shows_the_same_sections(home: Path, clinie: RunClinie) -> None:
    shown = clinie("report", "small", "--home", home, COLUMNS="80")
    assert "Which configuration is best?" in shown.stdout
    assert "Full fine-tuning or which PEFT method?" in shown.stdout
    best = clinie("best", "small", "--home", home)
    number = outcome_of(home)["best"]["number"]
    assert f"clinie repeat small {number}" in best.stdout


@pytest.mark.slow
def test_a_repeated_trial_has_the_same_score_and_can_be_compared(home: Path, clinie: RunClinie) -> None:
    trial = next(t for t in outcome_of(home)["trials"] if t["state"] == "complete")
    number = str(trial["number"])
    done = clinie("repeat", "small", number, "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(done.stdout)["trials"]
    assert again["metrics"]["strict_f1"] == trial["metrics"]["strict_f1"]
    compared = json.loads(clinie("compare", "small", f"small-trial-{number}", "--home", home, "--json").stdout)
    assert compared["scores"] == [outcome_of(home)["best"]["metrics"]["strict_f1"], trial["metrics"]["strict_f1"]]
    assert compared["winners"]["low"] <= compared["winners"]["difference"] <= compared["winners"]["high"]


def test_an_unknown_trial_results_in_a_one_line_error(home: Path, clinie: RunClinie) -> None:
    done = clinie("repeat", "small", "99", "--home", home)
    assert done.returncode == 2
    assert "study 'small' has no trial 99" in done.stderr
