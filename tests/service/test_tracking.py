"""MLflow runs of a study: on a server that is killed in between, and in the database of a home folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.errors import InputError
from search.storage.home import Home
from search.tracking import outbox
from search.tracking.connection import connect, require_reachable
from search.tracking.datasets import summarize_splits
from search.tracking.tracker import StudyFacts, Tracker
from search.trials.result import EpochResult

MakeConfig = Callable[..., TrialConfig]
Places = dict[int, dict[str, str]]


def make_tracker(home: Home, corpus: Corpus, places: Places) -> Tracker:
    def placed(number: int, where: dict[str, str]) -> None:
        places.setdefault(number, {}).update(where)

    datasets = summarize_splits(corpus, "synthetic")
    facts = StudyFacts("away", {"clinie.corpus": "synthetic"}, datasets, limits=[{"formulation": "span_pointer"}])
    return Tracker(connect(home), home, facts, placed)


def copy_folder(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target / "best")
    return target / "best"


def test_events_during_a_server_outage_arrive_once_after_it(
    tmp_path: Path, corpus: Corpus, mlflow_server: Any, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.1)
    checkpoint, (config, reports) = trained
    home, places = Home(tmp_path, mlflow_server.uri), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    tracker.on_epoch_end(0, EpochResult(1, reports[0].metrics))
    assert tracker.drain() == 0
    mlflow_server.kill()
    for epoch in (2, 3):
        tracker.on_epoch_end(0, EpochResult(epoch, reports[epoch - 1].metrics))
    best = copy_folder(checkpoint, tmp_path / "trial-0")
    tracker.end(
        0,
        "complete",
        config=config,
        reason=None,
        best=reports[2].metrics,
        best_epoch=3,
        checkpoint=best,
        keep=True,
    )
    tracker.begin(1, config, None, {})
    tracker.on_epoch_end(1, EpochResult(1, reports[0].metrics))
    assert tracker.drain(1.0) > 0
    tracker.stop()
    assert "run_id" not in places.get(1, {})
    assert best.is_dir()
    assert (home.study_folder("away") / "outbox.jsonl").exists()

    mlflow_server.start()
    tracker = make_tracker(home, corpus, places)  # a later process sends the waiting events
    tracker.on_epoch_end(1, EpochResult(2, reports[1].metrics))
    second = reports[1].metrics
    tracker.end(1, "pruned", config=config, reason=None, best=second, best_epoch=2, checkpoint=None, keep=False)
    tracker.close("FINISHED", {"trials_complete": 1}, "a note")
    assert tracker.drain() == 0
    assert not (home.study_folder("away") / "outbox.jsonl").exists()
    assert not best.exists()

    client = connect(home)
    runs = client.search_runs([client.get_experiment_by_name("away").experiment_id])
    assert sorted(r.data.tags["clinie.kind"] for r in runs) == ["study", "trial", "trial"]
    for number, epochs, status in ((0, 3, "FINISHED"), (1, 2, "FINISHED")):
        run = client.get_run(places[number]["run_id"])
        assert run.info.status == status
        history = client.get_metric_history(run.info.run_id, "dev/strict_f1")
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [
            (e, reports[e - 1].metrics["strict_f1"]) for e in range(1, epochs + 1)
        ]
        assert {d.dataset.name for d in run.inputs.dataset_inputs} == {
            "synthetic train",
            "synthetic dev",
            "synthetic test",
        }
    (output,) = client.get_run(places[0]["run_id"]).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status.name == "READY"
    assert {m.key: m.value for m in model.metrics}["best/strict_f1"] == reports[2].metrics["strict_f1"]
    assert {m.dataset_name for m in model.metrics} == {"synthetic dev"}
    assert places[0]["checkpoint"] == model.artifact_location


def test_a_resumed_trial_writes_the_epochs_that_mlflow_lacks(tmp_path: Path, corpus: Corpus, trained: Any) -> None:
    _, (config, reports) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    tracker.on_epoch_end(0, EpochResult(1, reports[0].metrics))
    tracker.drain()
    # The driver was killed between the records of epoch 2 in the ledger and in MLflow.
    known = {e: reports[e - 1].metrics for e in (1, 2)}
    again = make_tracker(home, corpus, places)
    again.begin(0, config, places[0]["run_id"], known)
    again.on_epoch_end(0, EpochResult(3, reports[2].metrics))
    again.drain()
    history = connect(home).get_metric_history(places[0]["run_id"], "dev/strict_f1")
    assert sorted(m.step for m in history) == [1, 2, 3]
    assert again.parent == tracker.parent


def test_a_run_has_parameters_tags_and_datasets(tmp_path: Path, corpus: Corpus, trained: Any) -> None:
    _, (config, reports) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(7, config, None, {})
    tracker.on_epoch_end(7, EpochResult(1, {**reports[0].metrics, "system.cpu_utilization_percentage": 50.0}))
    tracker.drain()
    run = connect(home).get_run(places[7]["run_id"])
    assert run.info.run_name == "007 lora tiny token_classification lr=0.003 r=4"
    told = {k.removeprefix("clinie."): v for k, v in run.data.tags.items() if k.startswith("clinie.")}
    assert told["architecture"] == "encoder"
    assert told["finetuning"] == "lora"
    assert told["corpus"] == "synthetic"
    assert run.data.metrics["system/cpu_utilization_percentage"] == 50.0
    assert float(run.data.params["learning_rate"]) == 3e-3
    assert run.data.params["finetuning.lora.rank"] == run.data.params["rank"] == "4"
    profile = run.inputs.dataset_inputs[0].dataset.profile
    assert all(note.text[:30] not in profile for note in corpus["train"])


def read_note(home: Home, run_id: str) -> str:
    return str(connect(home).get_run(run_id).data.tags["mlflow.note.content"])


def test_a_trials_description_has_its_score_its_end_its_settings_and_the_command_that_repeats_it(
    tmp_path: Path, corpus: Corpus, trained: Any
) -> None:
    checkpoint, (config, reports) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    tracker.drain()
    assert "Running." in read_note(home, places[0]["run_id"])
    for epoch in (1, 2, 3):
        tracker.on_epoch_end(0, EpochResult(epoch, reports[epoch - 1].metrics))
    best = max(reports, key=lambda report: report.metrics["strict_f1"])
    folder = copy_folder(checkpoint, tmp_path / "trial-0")
    values = {"best": best.metrics, "best_epoch": best.epoch, "checkpoint": folder, "keep": False}
    tracker.end(0, "complete", config=config, reason=None, **values)
    tracker.drain()
    note = read_note(home, places[0]["run_id"])
    assert f"**{best.metrics['strict_f1']:.4f}** (95 % interval 0." in note
    assert "Complete after 3 of 3 epochs." in note
    assert "| fine-tuning method&emsp; | lora |" in note
    assert "| rank&emsp; | 4 |" in note
    assert "`clinie repeat away 0`" in note
    metrics = connect(home).get_run(places[0]["run_id"]).data.metrics
    types = {name.split("/")[1] for name in metrics if name.startswith("types/")}
    assert types >= {concept.type for document in corpus["dev"] for concept in document.concepts}
    for type_ in types:
        assert 0 <= metrics[f"types/{type_}/f1"] <= 1


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ("pruned", "FINISHED", "Stopped early after 1 of 3 epochs, because other trials were better"),
        ("failed", "FAILED", "Failed after 1 of 3 epochs: ValueError in train.py"),
        ("infeasible", "FAILED", "Infeasible after 1 of 3 epochs: ValueError in train.py"),
    ],
)
def test_only_errors_are_marked_as_errors_and_the_description_has_the_reason(
    tmp_path: Path, corpus: Corpus, trained: Any, state: str, status: str, expected: str
) -> None:
    _, (config, reports) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    tracker.on_epoch_end(0, EpochResult(1, reports[0].metrics))
    reason = None if state == "pruned" else "ValueError in train.py"
    values = {"best": reports[0].metrics, "best_epoch": 1, "checkpoint": None, "keep": False}
    tracker.end(0, state, config=config, reason=reason, **values)
    tracker.drain()
    run = connect(home).get_run(places[0]["run_id"])
    assert (run.info.status, run.data.tags["clinie.state"]) == (status, state)
    assert expected in run.data.tags["mlflow.note.content"]


def test_the_metric_of_the_best_epoch_so_far_never_falls(tmp_path: Path, corpus: Corpus, trained: Any) -> None:
    _, (config, _) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    scores = {1: 0.5, 2: 0.3, 3: 0.6}
    for epoch, score in scores.items():
        metrics = {"strict_f1": score, "train_loss": 1.0, "seconds": 2.0, "A+B.strict_f1": score}
        tracker.on_epoch_end(0, EpochResult(epoch, metrics))
    tracker.drain()
    client = connect(home)

    def read(name: str) -> list[float]:
        return [m.value for m in client.get_metric_history(places[0]["run_id"], name)]

    assert read("dev/strict_f1") == [0.5, 0.3, 0.6]
    assert read("best/strict_f1") == [0.5, 0.5, 0.6]
    assert read("dev/A_B/strict_f1") == [0.5, 0.3, 0.6]
    names = client.get_run(places[0]["run_id"]).data.metrics.keys()
    assert {name.partition("/")[0] for name in names} == {"best", "dev", "train"}


def test_a_trial_of_an_earlier_version_is_resumed_with_the_epochs_that_its_run_lacks(
    tmp_path: Path, corpus: Corpus, trained: Any
) -> None:
    _, (config, reports) = trained
    home, places = Home(tmp_path), Places()
    tracker = make_tracker(home, corpus, places)
    tracker.begin(0, config, None, {})
    tracker.drain()
    client, run_id = connect(home), places[0]["run_id"]
    for name in ("train_loss", "strict_f1"):
        client.log_metric(run_id, name, reports[0].metrics[name], step=1)
    again = make_tracker(home, corpus, places)
    again.begin(0, config, run_id, {e: reports[e - 1].metrics for e in (1, 2)})
    again.drain()
    assert [m.step for m in client.get_metric_history(run_id, "dev/strict_f1")] == [2]


def test_a_study_has_the_limits_of_its_formulations_as_an_artifact(tmp_path: Path, corpus: Corpus) -> None:
    home = Home(tmp_path)
    tracker = make_tracker(home, corpus, {})
    run = connect(home).get_run(tracker.parent)
    found = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/representable.json")
    assert found == {"formulations": [{"formulation": "span_pointer"}]}


def test_an_unreachable_server_gives_one_line_before_the_search_starts(tmp_path: Path) -> None:
    home = Home(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(
        InputError,
        match=r"--tracking-uri: MLflow does not answer at http://127\.0\.0\.1:9; the URL of a running server",
    ):
        require_reachable(connect(home))
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    home = Home(tmp_path, "http://me:secret-word@127.0.0.1:9")
    with pytest.raises(InputError, match=r"http://me@127\.0\.0\.1:9") as raised:
        require_reachable(connect(home))
    assert "secret-word" not in str(raised.value)


def test_processes_that_create_a_home_concurrently_do_not_corrupt_its_database(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from search.storage.home import Home;"
        "from search.tracking.connection import connect;"
        "print(len(connect(Home(Path(sys.argv[1]))).search_experiments()))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["1", "1", "1"]
