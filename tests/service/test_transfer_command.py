"""`clinie transfer` as a user runs it: leave each corpus out, see one table, run it again for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from search.storage.home import Home

RunClinie = Callable[..., Any]


def test_each_corpus_is_left_out_once(
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: Callable[[Mapping[str, Any]], Path],
    clinie: RunClinie,
) -> None:
    for number, name in enumerate(("north", "south")):
        for split, notes in generate_splits(12, seed=number).items():
            Brat().write(notes, tmp_path / name / split)
    content = space_content | {
        "study": "wards",
        "corpus": [{"path": str(tmp_path / name), "name": name} for name in ("north", "south")],
        "budget": {"trials": 1, "epochs": 1},
        "space": {
            "backbone": "tiny",
            "formulation": {"span_question": {"wording": "name"}},
            "finetuning": {"full": {"learning_rate": 0.001}},
            "window_tokens": 160,
            "window_overlap": 16,
        },
    }
    space, home = write_space(content), tmp_path / "home"
    done = clinie("transfer", space, "--shots", "0,2", "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["holdout"], row["shots"]) for row in rows] == [("north", 0), ("north", 2), ("south", 0), ("south", 2)]
    assert all(0 <= row["low"] <= row["mean"] <= row["high"] <= 1 for row in rows)
    client = MlflowClient(Home.open(home).tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("wards").experiment_id])
    assert run.data.tags["clinie.kind"] == "transfer"
    assert "north/2_shot/strict_f1" in run.data.metrics
    written = (home / "studies" / "wards" / "transfer" / "transfer.json").read_text()
    assert json.loads(written)["results"] == json.loads(done.stdout)["results"]

    again = clinie("transfer", space, "--shots", "0,2", "--home", home)
    assert again.returncode == 0, again.stderr
    assert "no documents" in again.stdout
    wrong = clinie("transfer", space, "space.formulation=token_classification", "--home", home)
    assert wrong.returncode == 2
    assert "token_classification does not support several corpora" in wrong.stderr
    alone = clinie("transfer", space, f"corpus={{path: {tmp_path / 'north'}}}", "--home", home)
    assert alone.returncode == 2
    assert "only one corpus to leave out" in alone.stderr
