"""The main workflow on the command line: search, status, promote, predict, evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from clinie_core.data.corpora.brat import Brat
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home
from search.study.lock import hold_study
from tests.releases import write_ade

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteMainSpace = Callable[..., Path]


def test_the_outcome_names_every_trial_and_the_best(home: Path) -> None:
    outcome = json.loads((home.parent / "outcome.json").read_text())
    assert [t["number"] for t in outcome["trials"]] == [0, 1, 2, 3]
    assert {t["state"] for t in outcome["trials"]} <= {"complete", "pruned"}
    complete = [t for t in outcome["trials"] if t["state"] == "complete"]
    best = max(complete, key=lambda t: t["metrics"]["strict_f1"])
    assert outcome["best"]["metrics"]["strict_f1"] == best["metrics"]["strict_f1"]
    assert all(t["run_id"] and t["parameters"] for t in outcome["trials"])
    assert {t["number"] for t in outcome["trials"] if t["checkpoint"]} == {t["number"] for t in complete}


def test_mlflow_has_a_parent_run_and_one_child_run_per_trial(home: Path) -> None:
    outcome = json.loads((home.parent / "outcome.json").read_text())
    client = MlflowClient(Home.open(home).tracking_uri)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [r for r in runs if r.data.tags["clinie.kind"] == "study"]
    children = {r.info.run_id: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert set(children) == {t["run_id"] for t in outcome["trials"]}
    assert parent.info.status == "FINISHED"
    assert len(parent.data.tags["clinie.corpus_digest"]) == 64
    assert parent.data.tags["clinie.representable"].startswith("100.0 % of train (14 documents), 100.0 % of dev (3")
    limits = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/representable.json")
    for row in limits["formulations"]:
        assert set(row["splits"]) == {"train", "dev"}
        assert set(row["splits"]["train"]["by_type"].values()) == {1.0}
    for trial in outcome["trials"]:
        run = children[trial["run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.tags["clinie.state"] == trial["state"]
        assert run.data.params["finetuning"] == trial["parameters"]["finetuning"]
        for path, value in trial["parameters"].items():
            assert run.data.params[path] == str(value)
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "dev/strict_f1")]
        assert steps == list(range(1, trial["epochs"] + 1))
        for metric in ("train/loss", "train/peak_memory_mb", "train/trainable_parameters", "train/seconds"):
            assert run.data.metrics[metric] > 0
        assert run.data.metrics["dev/representable"] == 1.0
        artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert artifacts == {"document_counts.json", "error_counts.json"}
        if trial["state"] == "pruned":  # the weights of pruned trials are not stored
            assert run.outputs is None or not run.outputs.model_outputs
            continue
        (output,) = run.outputs.model_outputs
        checkpoint = client.get_logged_model(output.model_id)
        assert checkpoint.artifact_location == trial["checkpoint"]
        assert {f.name for f in Path(checkpoint.artifact_location.removeprefix("file://")).iterdir()} == {
            "clinie.json",
            "document_counts.json",
            "error_counts.json",
            "model.safetensors",
        }
        assert {m.key: m.value for m in checkpoint.metrics}["best/strict_f1"] == trial["metrics"]["strict_f1"]


def test_an_adapter_checkpoint_is_small(home: Path) -> None:
    outcome = json.loads((home.parent / "outcome.json").read_text())
    size = {
        t["parameters"]["finetuning"]: (Path(t["checkpoint"].removeprefix("file://")) / "model.safetensors")
        .stat()
        .st_size
        for t in outcome["trials"]
        if t["checkpoint"]
    }
    adapters = size.keys() & {"lora", "ia3"}
    assert adapters
    assert all(size[adapter] < size["full"] / 2 for adapter in adapters)


def test_training_files_are_removed(home: Path) -> None:
    assert list((home / "studies" / "small" / "trials").iterdir()) == []


def test_status_reads_the_ledger(home: Path, clinie: RunClinie) -> None:
    shown = clinie("status", "small", "--home", home)
    assert "study small (not running, " in shown.stdout
    assert "complete" in shown.stdout
    found = json.loads(clinie("status", "small", "--home", home, "--json").stdout)
    assert found["trials"] == json.loads((home.parent / "outcome.json").read_text())["trials"]
    assert json.loads(clinie("status", "--home", home, "--json").stdout)["studies"][0]["study"] == "small"


def test_a_study_name_can_be_used_only_once(home: Path, clinie: RunClinie, write_main_space: WriteMainSpace) -> None:
    space = write_main_space(home.parent)
    for trials, found in ((4, "study 'small' exists; "), (9, "exists, and has other values of budget.trials; ")):
        done = clinie("search", space, f"budget.trials={trials}", "--home", home)
        assert done.returncode == 2
        assert found in done.stderr
        assert "clinie resume small" in done.stderr


def test_promotion_scores_dev_and_test_and_names_the_champion(home: Path, promoted: dict[str, Any]) -> None:
    outcome = json.loads((home.parent / "outcome.json").read_text())
    assert promoted["candidate"]["trial"] == outcome["best"]["number"]
    assert promoted["dev"] == outcome["best"]["metrics"]
    test = promoted["decision"]["test"]
    assert 0 <= test["strict_f1"] <= test["lenient_f1"] <= 1
    uri = Home.open(home).tracking_uri
    client = MlflowClient(uri, registry_uri=uri)  # the default registry is global and may be another test's
    version = client.get_model_version_by_alias("tiny-model", "champion")
    assert str(version.version) == promoted["version"]
    assert version.tags["clinie.study"] == "small"
    assert version.tags["clinie.test_strict_f1"] == f"{test['strict_f1']:.4f}"


FRESH = """
import importlib.abc, json, sys

class NoSearch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("search", "ray", "optuna"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NoSearch())
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny-model@champion")
print(json.dumps([json.loads(row)["concepts"] for row in model.predict(json.load(sys.stdin))]))
print(model.metadata.signature, file=sys.stderr)
"""


@pytest.mark.usefixtures("promoted")
def test_the_registered_model_runs_without_the_search(home: Path, corpus_folder: Path, clinie: RunClinie) -> None:
    documents = Brat().read_all(corpus_folder / "test")
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, Home.open(home).tracking_uri],
        input=json.dumps([d.text for d in documents]),
        capture_output=True,
        text=True,
        check=True,
        cwd=home.parent,
        timeout=200,
    )
    files = [corpus_folder / "test" / f"{d.id}.txt" for d in documents]
    shown = clinie("predict", *files, "--model", "tiny-model@champion", "--home", home, "--json")
    predicted = [d["concepts"] for d in json.loads(shown.stdout)["documents"]]
    assert json.loads(fresh.stdout) == predicted
    assert sum(map(len, predicted)) > 0
    assert (
        fresh.stderr.count("[string (required)]") == 2
    )  # the signature: one text per input row, one JSON object per output row


@pytest.mark.usefixtures("promoted")
def test_prediction_marks_the_text_and_writes_brat(home: Path, tmp_path: Path, clinie: RunClinie) -> None:
    text = "Denies fever. Started on norvatidine 40 mg daily.\n"
    shown = clinie("predict", "-", "--model", "tiny-model/1", "--home", home, input_text=text)
    assert shown.returncode == 0, shown.stderr
    assert "norvatidine" in shown.stdout
    (tmp_path / "note.txt").write_text(text)
    written = clinie(
        "predict", tmp_path / "note.txt", "--model", "tiny-model/1", "--home", home, "--output", tmp_path / "out"
    )
    assert written.returncode == 0, written.stderr
    assert Brat().read_all(tmp_path / "out")[0].text == text


def test_evaluation_agrees_with_promotion(
    home: Path, corpus_folder: Path, promoted: dict[str, Any], clinie: RunClinie
) -> None:
    done = clinie(
        "evaluate", corpus_folder, "--model", "tiny-model@champion", "--split", "test", "--home", home, "--json"
    )
    scores = json.loads(done.stdout)
    test = promoted["decision"]["test"]
    assert {k: scores[k] for k in test} == test
    low, high = scores["strict_f1_interval"]
    assert low <= scores["strict_f1"] <= high


@pytest.mark.usefixtures("promoted")
def test_evaluation_with_a_preset_counts_as_its_shared_task(home: Path, tmp_path: Path, clinie: RunClinie) -> None:
    write_ade(tmp_path)
    for chosen, expected in ((), "n2c2-2018"), (("--scorer", "clinie"), "clinie"):
        options = ("--preset", "n2c2-2018", "--split", "test", "--home", home, "--json", *chosen)
        done = clinie("evaluate", tmp_path, "--model", "tiny-model@champion", *options)
        assert done.returncode == 0, done.stderr
        scores = json.loads(done.stdout)
        assert scores["scorer"] == expected
        assert "n2c2-2018: expected 202 test documents, found 2 test" in scores["notices"][0]


def test_an_unknown_model_results_in_a_one_line_error(home: Path, clinie: RunClinie) -> None:
    done = clinie("predict", "-", "--model", "missing@champion", "--home", home, input_text="x")
    assert done.returncode == 2
    assert "no model 'missing@champion' in the registry" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_file_of_the_home_contains_text_of_the_corpus(
    home: Path, corpus_folder: Path, promoted: dict[str, Any]
) -> None:
    assert promoted["version"]
    texts = [f.read_text() for f in corpus_folder.rglob("*.txt")]
    phrases = {text[at : at + 24].encode() for text in texts for at in range(0, len(text) - 24, 60)}
    # The model contains a copy of clinie's sources, and these contain the vocabulary of the synthetic notes.
    written = {f: f.read_bytes() for f in home.rglob("*") if f.is_file() and "code" not in f.parts}
    assert not {f for f, content in written.items() if any(phrase in content for phrase in phrases)}


@pytest.mark.usefixtures("promoted")
def test_only_the_owner_can_read_the_home_and_predictions(home: Path, tmp_path: Path, clinie: RunClinie) -> None:
    (tmp_path / "note.txt").write_text("Denies fever.", encoding="utf-8")
    out = tmp_path / "out"
    clinie("predict", tmp_path / "note.txt", "--model", "tiny-model@champion", "--home", home, "-o", out)
    readable = [
        str(path)
        for root in (home, out)
        for path in (root, *root.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert readable == []


def test_ctrl_c_stops_cleanly_and_resume_continues(
    tmp_path: Path,
    write_main_space: WriteMainSpace,
    clinie: RunClinie,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    home, epochs = tmp_path / "home", 30
    space = write_main_space(tmp_path, budget={"trials": 2, "epochs": epochs}, algorithm={"scheduler": "none"})
    command = ["search", str(space), "space.backbone=tiny", "--home", str(home)]
    program = [str(Path(sys.executable).with_name("clinie")), *command]
    search = subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))

    def has_reported() -> bool:
        assert search.poll() is None, search.communicate()
        if not (home / "ledger.journal").exists():
            return False
        names = list_study_names(Home.open(home))
        return bool(names) and any(r.epochs for r in Ledger.open(open_storage(Home.open(home)), "small").records())

    wait_until(has_reported)
    search.send_signal(signal.SIGINT)
    _, messages = search.communicate(timeout=600)
    assert search.returncode == 1
    assert "continue with: clinie resume small" in messages
    assert "Traceback" not in messages

    before = json.loads(clinie("status", "small", "--home", home, "--json").stdout)["trials"]
    assert {t["state"] for t in before} == {"interrupted"}
    report = clinie("report", "small", "--home", home, "--format", "md").stdout
    assert f"{len(before)} interrupted" in report
    with hold_study(Home.open(home), "small", open_storage(Home.open(home))):
        busy = clinie("resume", "small", "--home", home)
    assert busy.returncode == 2
    assert "a search of 'small' is running in this home; found a second driver on a journal ledger" in busy.stderr
    resumed = clinie("resume", "small", "--home", home, "--json")
    assert resumed.returncode == 0, resumed.stderr
    after = json.loads(resumed.stdout)["trials"]
    assert [t["state"] for t in after] == ["complete", "complete"]
    runs = {t["number"]: t["run_id"] for t in before if t["run_id"]}  # a trial may have been drawn but not started
    assert runs
    assert {t["number"]: t["run_id"] for t in after if t["number"] in runs} == runs
    client = mlflow.tracking.MlflowClient(Home.open(home).tracking_uri)
    for trial in after:
        steps = [m.step for m in client.get_metric_history(trial["run_id"], "dev/strict_f1")]
        assert steps == list(range(1, epochs + 1))
        assert client.get_run(trial["run_id"]).info.status == "FINISHED"


@pytest.mark.slow
def test_a_search_reports_the_reason_if_all_trials_fail(
    tmp_path: Path, write_main_space: WriteMainSpace, clinie: RunClinie
) -> None:
    space = write_main_space(tmp_path, budget={"trials": 2, "epochs": 2})
    # 32 units are not divisible by three heads. No check finds this before transformers builds the model.
    broken = ["space.backbone=tiny", "backbones.tiny.scratch.num_attention_heads=3", "space.batch_size=8"]
    done = clinie("search", space, *broken, "--home", tmp_path / "home")
    assert done.returncode == 1
    assert "failed all 2 trials failed; the last one: " in done.stderr
    assert "modeling_bert.py" in done.stderr
    trials = json.loads(clinie("status", "small", "--home", tmp_path / "home", "--json").stdout)["trials"]
    assert {t["state"] for t in trials} == {"failed"}
    client = MlflowClient(Home.open(tmp_path / "home").tracking_uri)
    for trial in trials:
        run = client.get_run(trial["run_id"])
        assert run.info.status == "FAILED"
        assert run.data.tags["clinie.reason"] == trial["reason"]


@pytest.mark.slow
def test_two_processes_per_trial(tmp_path: Path, write_main_space: WriteMainSpace, clinie: RunClinie) -> None:
    space = write_main_space(tmp_path, budget={"trials": 2, "epochs": 2})
    done = clinie(
        "search", space, "space.backbone=tiny", "resources.workers_per_trial=2", "--home", tmp_path / "home", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert all(t["metrics"] for t in json.loads(done.stdout)["trials"])
