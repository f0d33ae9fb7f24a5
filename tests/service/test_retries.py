"""Failures of trials in a real search: retries, a smaller micro-batch, infeasible trials, and the end of a search."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray.cloudpickle

from clinie_core.errors import OutOfMemory, fail
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.pool.pool import WorkerPool
from search.pool.worker import OnReport, Program
from search.storage.home import Home
from search.trials.job import Job
from search.trials.result import EpochResult
from search.tune.run import MAX_FAILED_TRIALS, run_trials
from search.tune.stop_signal import StopSignal

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module
pytestmark = pytest.mark.usefixtures("local_ray")
WriteSpace = Callable[[Mapping[str, Any]], Path]


def make_failing_program(device: object) -> Program:
    """Return a program whose failures depend on the weight decay.

    It fails once below 0.1, always below 0.2, with too little memory below 0.4, and otherwise never.
    """
    attempts: Counter[int] = Counter()

    def run(job: Job, on_report: OnReport) -> None:
        decay = float(json.loads(job.config)["weight_decay"])
        attempts[job.number] += 1
        if decay < 0.1 and attempts[job.number] == 1:
            raise ValueError("a note says: aspirin")
        if 0.1 <= decay < 0.2:
            fail("space.weight_decay", f"attempt {attempts[job.number]}")
        if 0.2 <= decay < 0.3 and job.resources != "large":
            raise OutOfMemory(job.micro_batch or 16, 900.0, recomputation=job.recomputation)
        if 0.3 <= decay < 0.4 and job.micro_batch is None:
            raise OutOfMemory(16, 800.0)
        rows = float(job.micro_batch or 0)
        on_report(EpochResult(1, {"strict_f1": decay, "rows": rows}, finished=True))

    return run


def run_failing_search(
    content: dict[str, Any], points: list[float], trials: int, write_space: WriteSpace, home: Home
) -> tuple[Ledger, optuna.Study]:
    content = content | {
        "budget": {"trials": trials, "epochs": 1},
        "algorithm": {"sampler": "tpe", "points_to_evaluate": [{"weight_decay": point} for point in points]},
    }
    content["space"] = content["space"] | {"weight_decay": {"uniform": [0.0, 1.0]}}
    space = build_space(*read_space_file(str(write_space(content))))
    storage = open_storage(home)
    ledger = Ledger.create(storage, "failing", space.file.objective, space.file.algorithm, {})
    names = tuple(own.name for own in space.file.resources)
    with WorkerPool(space.file.resources, make_failing_program, home.root / "ray") as pool:
        run_trials(
            pool,
            ledger,
            space,
            [],
            stop=StopSignal(),
            trials=trials,
            budget=None,
            trials_folder=None,
            tune_folder=home.root / "tune",
            list_classes=lambda config: names,
        )
    return ledger, optuna.load_study(storage=storage, study_name="failing")


def test_each_failure_has_its_own_state(space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path) -> None:
    points = [0.05, 0.15, 0.25, 0.35, 0.9]
    home = Home.open(tmp_path / "home", create=True)
    ledger, study = run_failing_search(space_content, points, len(points), write_space, home)
    once, always, large, halved, well = ledger.records()
    assert [r.state for r in (once, always, large, halved, well)] == [
        "complete",
        "failed",
        "infeasible",
        "complete",
        "complete",
    ]
    assert always.reason == "InputError: space.weight_decay: attempt 3"
    assert large.reason is not None
    assert large.reason.startswith("out of memory in each attempt: 16 windows at once (peak 900 MiB), 8 windows")
    assert large.reason.endswith("1 window at once with recomputation (peak 900 MiB)")
    assert halved.metrics["rows"] == 8
    assert well.metrics["rows"] == 0
    frozen = study.trials[large.number]
    assert frozen.state == optuna.trial.TrialState.PRUNED
    assert frozen.constraints["memory"] > 0
    assert ledger.best() == well
    # The sampler accepts trials in all of these states.
    number, _ = ledger.ask(build_space(*read_space_file(str(tmp_path / "space.yaml"))))
    assert number == len(points)


def test_a_search_whose_trials_all_fail_ends(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path
) -> None:
    home = Home.open(tmp_path / "home", create=True)
    ledger, _ = run_failing_search(space_content, [0.15] * 12, 12, write_space, home)
    states = Counter(record.state for record in ledger.records())
    assert states["failed"] == MAX_FAILED_TRIALS
    assert sum(states.values()) <= MAX_FAILED_TRIALS + 1


def test_a_trial_without_memory_is_trained_in_the_next_larger_class(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path
) -> None:
    classes = [{"name": "small", "memory_gib": 1}, {"name": "large", "memory_gib": 2}]
    classes[1] |= {"price_per_hour": 3600, "currency": "EUR"}
    content = space_content | {"resources": [own | {"concurrent_trials": 1} for own in classes]}
    home = Home.open(tmp_path / "home", create=True)
    ledger, _ = run_failing_search(content, [0.25, 0.9], 2, write_space, home)
    moved, small = ledger.records()
    assert [moved.state, small.state] == ["complete", "complete"]
    assert [moved.resource_class, small.resource_class] == ["large", "small"]
    assert moved.metrics["rows"] == 0  # the micro-batch is not reduced in the larger class
    assert moved.usage.cost is not None
    assert moved.usage.cost > 0
    assert (small.usage.cost, moved.usage.gpu_hours) == (None, None)
