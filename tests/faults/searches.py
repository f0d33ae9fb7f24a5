"""A small search with injected faults, run from the command line, and its outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow.tracking import MlflowClient

from search.storage.home import Home

INJECT = Path(__file__).with_name("inject")
TRIALS, EPOCHS = 3, 3
POINTS: dict[str, dict[str, Any]] = {
    "after a suggestion": {"at": "search.tune.searcher:LedgerSearcher.suggest", "after": True, "count": 2},
    "in the middle of a suggestion": {
        "at": "search.config.search_space:SearchSpace.suggest",
        "after": False,
        "count": 3,
    },
    "before the first epoch": {"at": "clinie_core.training.trainer:Trainer.train_epoch", "after": False, "count": 1},
    "in the middle of an epoch": {"at": "clinie_core.training.trainer:Trainer._step", "after": True, "count": 6},
    "while a checkpoint is written": {"at": "clinie_core.training.state:replace_folder", "after": False, "count": 2},
    "between the two renames of a checkpoint": {
        "at": "clinie_core.modeling.folder_replacement:_set_aside",
        "after": True,
        "count": 1,
        "folder_name": "last",
    },
    "after the checkpoint, before the report": {
        "at": "search.pool.program:to_epoch_result",
        "after": False,
        "count": 2,
    },
    "after the report, before the ledger": {"at": "search.ledger.ledger:Ledger.report", "after": False, "count": 2},
    "while an epoch is written to MLflow": {"at": "search.tracking.runs:Runs._write", "after": False, "count": 4},
    "while a model is logged": {"at": "search.tracking.runs:Runs._find_logged_model", "after": True, "count": 1},
    "between MLflow and the ledger": {"at": "search.ledger.ledger:Ledger.end", "after": False, "count": 1},
    "after the ledger has recorded a trial's end": {"at": "search.ledger.ledger:Ledger.end", "after": True, "count": 1},
}
"""Points at which a fault is injected: before or after the call of a function with this 1-based count.

Calls are counted over all processes of the search.
"""


@dataclass(frozen=True)
class SearchOutcome:
    """Outcome of a search.

    Args:
        trials: State, parameters, epochs and scores of each trial.
        steps: Epochs for which the MLflow run of each trial has a score, by trial.
        best: Number of the best trial.
        kept: Numbers of the trials whose weights are stored.
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


def run(
    arguments: list[str], home: Path, fault: dict[str, Any] | None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a clinie command with a fault in its processes.

    Args:
        arguments: Arguments of the command line.
        home: Home folder.
        fault: The fault, in the format of ``inject/sitecustomize.py``; None for no fault.
        variables: Additional environment variables.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CLINIE_FAULT", "RAY_AUTH_"))} | variables
    env["CLINIE_FAULT_HOME"] = str(home)  # marks every process of this search, to find those that remain
    if fault is not None:
        env |= {"CLINIE_FAULT": json.dumps(fault), "PYTHONPATH": str(INJECT)}
    command = [sys.executable, "-m", "search.cli", *arguments, "--home", str(home)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


def read_outcome(home: Path, **variables: str) -> SearchOutcome:
    """Read the outcome of a search from its ledger and from MLflow."""
    status = run(["status", "faults", "--json"], home, None, **variables)
    assert status.returncode == 0, status.stderr
    found = json.loads(status.stdout)
    client = MlflowClient(variables.get("CLINIE_TRACKING_URI") or Home(home).tracking_uri)
    experiment = client.get_experiment_by_name("faults")
    runs = client.search_runs([experiment.experiment_id], "tags.clinie.kind = 'trial'")
    numbers = [int(r.data.tags["clinie.trial"]) for r in runs]
    assert len(numbers) == len(set(numbers)), "a trial has more than one run"
    steps = {
        int(r.data.tags["clinie.trial"]): [m.step for m in client.get_metric_history(r.info.run_id, "dev/strict_f1")]
        for r in runs
    }
    trials = [
        {key: trial[key] for key in ("number", "state", "reason", "parameters", "epochs", "best_epoch")}
        | {"strict_f1": trial["metrics"].get("strict_f1")}
        for trial in found["trials"]
    ]
    kept = [trial["number"] for trial in found["trials"] if trial["checkpoint"]]
    return SearchOutcome(trials, steps, found["best"]["number"], kept)


def find_processes(home: Path) -> list[psutil.Process]:
    """Return all processes of this user that were started for a search in a home folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CLINIE_FAULT_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def assert_same(outcome: SearchOutcome, expected: SearchOutcome) -> None:
    """Compare two outcomes, first trial by trial, so that pytest shows a difference in full."""
    for trial, other in zip(outcome.trials, expected.trials, strict=True):
        assert trial == other
    assert outcome == expected
