"""The ledger of searches with known scores: ASHA, crashes, scores that are not finite, several objectives."""

from __future__ import annotations

import gc
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray.cloudpickle
from optuna.trial import TrialState
from ray.tune.experiment import Trial

from search.config.search_space import SearchSpace
from search.config.space_file import Budget, Finalists, SpaceFile
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.budget import StudyBudget, read_spent_hours
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.pool.pool import WorkerPool
from search.pool.worker import OnReport, Program
from search.storage.home import Home
from search.trials.job import Job
from search.trials.listener import TrialListener
from search.trials.result import EpochResult
from search.tune.run import run_trials
from search.tune.stop_signal import StopSignal
from search.tune.trainable import RunSettings

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

WriteSpace = Callable[[Mapping[str, Any]], Path]
EPOCHS = 9


def compute_score(decay: float, epoch: int) -> float:
    """Return the score of an epoch, which grows linearly with the weight decay."""
    return decay * epoch / EPOCHS


def make_known_program(device: object) -> Program:
    def run(job: Job, on_report: OnReport) -> None:
        config = json.loads(job.config)
        decay = float(config["weight_decay"])
        if decay > 0.95:
            raise ValueError("a note says: aspirin for Mr Smith")
        for epoch in range(1, EPOCHS + 1):
            score = math.nan if 0.9 < decay <= 0.95 else compute_score(decay, epoch)
            parameters = 1000 * decay if decay >= 0.5 else 900  # a low score with many parameters is dominated
            metrics = {"strict_f1": score, "trainable_parameters": parameters}
            if not on_report(EpochResult(epoch, metrics, finished=epoch == EPOCHS)):
                return

    return run


@pytest.fixture
def known_space(space_content: dict[str, Any], write_space: WriteSpace) -> Callable[..., SearchSpace]:
    def make(objective: Any, points: list[float]) -> SearchSpace:
        content = space_content | {
            "objective": objective,
            "budget": {"trials": len(points), "epochs": EPOCHS},
            "algorithm": {
                "sampler": "random",
                "reduction_factor": 3,
                "points_to_evaluate": [{"weight_decay": point} for point in points],
            },
        }
        content["space"] = content["space"] | {"weight_decay": {"uniform": [0.0, 1.0]}}
        return build_space(*read_space_file(str(write_space(content))))

    return make


class HeldTrials(TrialListener):
    """Listener that counts the trials that Tune holds in memory when a trial has ended."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self.most = 0

    def on_trial_recorded(self, number: int) -> None:
        gc.collect()  # the attributes of a trial refer to it
        trials = (item for item in gc.get_objects() if isinstance(item, Trial))
        own = sum(RunSettings.from_tune_config(trial.config).queue == self._queue for trial in trials)
        self.most = max(self.most, own)


def run_known(space: SearchSpace, home: Home) -> tuple[Ledger, optuna.Study]:
    file: SpaceFile = space.file
    storage = open_storage(home)
    ledger = Ledger.create(storage, "known", file.objective, file.algorithm, {})
    with WorkerPool(file.resources, make_known_program, home.root / "ray") as pool:
        held = HeldTrials(pool.queue_name)
        run_trials(
            pool,
            ledger,
            space,
            [held],
            stop=StopSignal(),
            trials=file.budget.trials,
            budget=None,
            trials_folder=None,
            tune_folder=home.root / "tune",
        )
        assert held.most <= pool.groups + 2, "one more is drawn, and the last one that ended is released later"
    return ledger, optuna.load_study(storage=storage, study_name="known")


@pytest.mark.usefixtures("local_ray")
def test_stopped_finished_and_crashed_trials_have_different_states(
    known_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    points = [0.8, 0.1, 0.2, 0.3, 0.97, 0.85, 0.92]
    ledger, study = run_known(known_space({"maximize": "strict_f1"}, points), Home.open(tmp_path / "home", create=True))
    by_point = {round(t.params["weight_decay"], 2): t for t in study.trials}
    assert set(by_point) == set(points)

    # The best two trials use their budget; their value is the last one, which is the best.
    for point in (0.8, 0.85):
        trial = by_point[point]
        assert trial.state == TrialState.COMPLETE
        assert trial.value == pytest.approx(point)
        assert trial.intermediate_values == {e: pytest.approx(compute_score(point, e)) for e in range(1, EPOCHS + 1)}
    # ASHA stops the other trials at its rungs of 1 and 3 epochs; all their epochs are stored.
    for point in (0.1, 0.2, 0.3):
        trial = by_point[point]
        assert trial.state == TrialState.PRUNED
        last = trial.last_step
        assert last in (1, 3)
        assert trial.intermediate_values == {e: pytest.approx(compute_score(point, e)) for e in range(1, last + 1)}
    # The reason of a crash has its type and place, but not its message.
    crashed = by_point[0.97]
    assert crashed.state == TrialState.FAIL
    assert crashed.user_attrs["reason"].startswith("ValueError at test_ledger.py:")
    assert "Smith" not in crashed.user_attrs["reason"]
    assert by_point[0.92].state == TrialState.FAIL
    assert by_point[0.92].user_attrs["reason"] == "strict_f1 is not a finite number"

    best = ledger.best()
    assert best is not None
    assert best.parameters["weight_decay"] == pytest.approx(0.85)
    assert best.best_epoch == EPOCHS


@pytest.mark.usefixtures("local_ray")
def test_the_scores_of_all_epochs_are_stored_with_several_objectives(
    known_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    objectives = [{"maximize": "strict_f1"}, {"minimize": "trainable_parameters"}]
    ledger, study = run_known(known_space(objectives, [0.8, 0.1, 0.5]), Home.open(tmp_path / "home", create=True))
    states = {round(t.params["weight_decay"], 2): t.state for t in study.trials}
    assert states[0.8] == TrialState.COMPLETE
    assert states[0.1] == TrialState.PRUNED
    for record in ledger.records():
        decay = record.parameters["weight_decay"]
        assert sorted(record.epochs) == list(range(1, len(record.epochs) + 1))
        assert all(m["strict_f1"] == pytest.approx(compute_score(decay, e)) for e, m in record.epochs.items())
    complete = next(t for t in study.trials if t.state == TrialState.COMPLETE)
    assert complete.values == [pytest.approx(0.8), pytest.approx(800)]


@pytest.mark.usefixtures("local_ray")
def test_finalists_run_with_other_seeds_on_the_pool(known_space: Callable[..., SearchSpace], tmp_path: Path) -> None:
    space = known_space({"maximize": "strict_f1"}, [0.8, 0.1, 0.9])
    space.file = space.file.model_copy(update={"finalists": Finalists(trials=1, seeds=3)})
    ledger, _ = run_known(space, Home.open(tmp_path / "home", create=True))
    best = ledger.rank()[0]
    assert (best.record.parameters["weight_decay"], len(best.scores)) == (0.9, 3)
    runs = [record for record in ledger.records() if record.repeats is not None]
    assert [(run.repeats, run.state, len(run.epochs)) for run in runs] == [(2, "complete", EPOCHS)] * 2


@pytest.mark.usefixtures("local_ray")
def test_a_search_whose_hours_are_spent_ends_and_says_why(
    known_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    space = known_space({"maximize": "strict_f1"}, [0.8, 0.1, 0.9])
    storage = open_storage(Home.open(tmp_path / "home", create=True))
    ledger = Ledger.create(storage, "known", space.file.objective, space.file.algorithm, {})
    budget = StudyBudget(ledger, Budget(hours=1e-9), 0)
    with WorkerPool(space.file.resources, make_known_program, tmp_path / "ray") as pool:
        reason = run_trials(
            pool,
            ledger,
            space,
            [],
            stop=StopSignal(),
            trials=3,
            budget=budget,
            trials_folder=None,
            tune_folder=tmp_path / "tune",
        )
    assert reason == "budget.hours of 1e-09 is spent, over all runs of this study"
    assert all(record.state == "running" for record in ledger.records())
    assert read_spent_hours(ledger) > 1e-9
