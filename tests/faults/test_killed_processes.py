"""A search of which a process is killed, each at each point, ends as one that nothing happened to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

from search.settings import Home

INJECT = Path(__file__).with_name("inject")
TRIALS, EPOCHS = 3, 3
POINTS: dict[str, dict[str, Any]] = {
    "after a suggestion": {"at": "search.suggest:LedgerSearcher.suggest", "after": True, "count": 2},
    "in the middle of a suggestion": {"at": "search.space:SearchSpace.suggest", "after": False, "count": 3},
    "before the first epoch": {"at": "clinie_core.trainer:Trainer.train_epoch", "after": False, "count": 1},
    "in the middle of an epoch": {"at": "clinie_core.trainer:Trainer._step", "after": True, "count": 6},
    "while a checkpoint is written": {"at": "clinie_core.training_state:replace_folder", "after": False, "count": 2},
    "after the checkpoint, before the report": {
        "at": "search.executor.programs:as_result",
        "after": False,
        "count": 2,
    },
    "after the report, before the ledger": {"at": "search.ledger:Ledger.report", "after": False, "count": 2},
    "while MLflow is told an epoch": {"at": "search.tracking.runs:Runs._log_epoch", "after": False, "count": 4},
    "while a model is logged": {"at": "search.tracking.runs:Runs._logged_model", "after": True, "count": 1},
    "between MLflow and the ledger": {"at": "search.ledger:Ledger.end", "after": False, "count": 1},
    "after the ledger has a trial's end": {"at": "search.ledger:Ledger.end", "after": True, "count": 1},
}
VICTIMS = {
    "the worker": "RayTrainWorker",
    "the trial client": "TrialClient",
    "the job board": "JobBoard",
    "the driver": "driver",
}
QUICK = {
    ("in the middle of an epoch", "the worker"),
    ("between MLflow and the ledger", "the driver"),
}
"""Those that run with every change; the others are slow."""


@dataclass(frozen=True)
class Ending:
    """What a search left.

    Args:
        trials: Each trial's state, parameters, epochs and scores.
        steps: The epochs that each trial's only run has of the score.
        best: Number of the best trial.
        kept: Trials whose weights are kept.
    """

    trials: list[dict[str, Any]]
    steps: dict[int, list[int]]
    best: int
    kept: list[int]


def write_search(folder: Path, corpus_folder: Path) -> Path:
    space = {
        "version": 1,
        "study": "faults",
        "corpus": {"path": str(corpus_folder)},
        "budget": {"trials": TRIALS, "epochs": EPOCHS, "checkpoints": 1},
        "algorithm": {"startup_trials": 1, "scheduler": "asha", "grace_epochs": 1},
        "resources": {"concurrent_trials": 1},
        "backbones": {"tiny": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1,
                                           "num_attention_heads": 2, "intermediate_size": 64}}},
        "space": {
            "backbone": "tiny",
            "formulation": "token_classification",
            "finetuning": {"full": {"learning_rate": {"log": [1e-4, 1e-2]}}},
            "window_tokens": 96,
            "window_overlap": 16,
            "batch_size": 8,
        },
    }  # fmt: skip
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(space), encoding="utf-8")
    return file


def run(arguments: list[str], home: Path, fault: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("CLINIE_FAULT", "CLINIE_FAULT_DRIVER")}
    env["CLINIE_FAULT_HOME"] = str(home)  # marks every process of this search, so that what stays behind is found
    if fault is not None:
        env |= {"CLINIE_FAULT": json.dumps(fault), "PYTHONPATH": str(INJECT)}
    command = [sys.executable, "-m", "search.cli", *arguments, "--home", str(home)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


def ending_of(home: Path) -> Ending:
    status = run(["status", "faults", "--json"], home, None)
    assert status.returncode == 0, status.stderr
    found = json.loads(status.stdout)
    client = MlflowClient(Home(home).tracking_uri)
    experiment = client.get_experiment_by_name("faults")
    runs = client.search_runs([experiment.experiment_id], "tags.clinie.kind = 'trial'")
    numbers = [int(r.data.tags["clinie.trial"]) for r in runs]
    assert len(numbers) == len(set(numbers)), "a trial has more than one run"
    steps = {
        int(r.data.tags["clinie.trial"]): [m.step for m in client.get_metric_history(r.info.run_id, "strict_f1")]
        for r in runs
    }
    trials = [
        {key: trial[key] for key in ("number", "state", "reason", "parameters", "epochs", "best_epoch")}
        | {"strict_f1": trial["metrics"].get("strict_f1")}
        for trial in found["trials"]
    ]
    kept = [trial["number"] for trial in found["trials"] if trial["checkpoint"]]
    return Ending(trials, steps, found["best"]["number"], kept)


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process of this user that was started for a search in a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CLINIE_FAULT_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


@pytest.fixture(scope="session")
def undisturbed_home(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(["search", str(write_search(folder, corpus_folder))], folder / "home", None)
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.fixture(scope="session")
def undisturbed(undisturbed_home: Path) -> Ending:
    ending = ending_of(undisturbed_home)
    assert len(ending.trials) == TRIALS
    assert len(ending.kept) == 1
    return ending


CASES = [
    pytest.param(point, victim, marks=() if (point, victim) in QUICK else pytest.mark.slow)
    for point in POINTS
    for victim in VICTIMS
]


@pytest.mark.parametrize(("point", "victim"), CASES)
def test_a_kill_changes_nothing_of_what_a_search_finds(
    point: str,
    victim: str,
    tmp_path: Path,
    corpus_folder: Path,
    undisturbed: Ending,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    home, signs = tmp_path / "home", tmp_path / "signs"
    signs.mkdir()
    fault = {**POINTS[point], "victim": VICTIMS[victim], "folder": str(signs)}
    done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault)
    if victim == "the driver":
        assert done.returncode < 0, "the driver was to be killed"
        traced = {**fault, "count": 0}  # no second kill
        done = run(["resume", "faults"], home, traced)
    else:
        assert (signs / "killed").exists(), f"there was no {victim} to kill: {done.stderr}"
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    assert ending_of(home) == undisturbed
    for number, steps in undisturbed.steps.items():
        assert steps == sorted(set(steps)), f"trial {number} has a step twice"
    trained = Counter((signs / "epochs").read_text().splitlines())
    repeated = {epoch: count for epoch, count in trained.items() if count > 1}
    assert sum(repeated.values()) <= 2, f"more than the epoch that was cut off was trained again: {repeated}"

    assert not list(home.glob("studies/faults/trials/*")), "a checkpoint of a trial that ended was left"
    wait_until(lambda: not processes_of(home))


def test_a_finished_study_is_extended(undisturbed: Ending, undisturbed_home: Path) -> None:
    done = run(["extend", "faults", "--trials", "1"], undisturbed_home, None)
    assert done.returncode == 0, done.stderr
    longer = ending_of(undisturbed_home)
    assert longer.trials[:TRIALS] == undisturbed.trials
    assert len(longer.trials) == TRIALS + 1
    assert longer.trials[TRIALS]["state"] == "complete"
    nobody = run(["stop", "faults"], undisturbed_home, None)
    assert nobody.returncode == 2
    assert "no search of 'faults' is running" in nobody.stderr
