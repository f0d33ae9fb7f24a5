"""The ledger on an in-memory storage: states, scores, resuming, and draws that do not depend on the driver."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from clinie_core.errors import InputError
from search.config.objectives import Objective
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.ledger.ledger import Ledger

TINY = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SCORE = (Objective(maximize="strict_f1"),)
LOSS = (Objective(minimize="train_loss"),)
MEMORY = (Objective(minimize="peak_memory_mb"),)


@pytest.fixture
def storage() -> BaseStorage:
    return InMemoryStorage()


@pytest.fixture
def space() -> SearchSpace:
    return make_space()


def make_space(objective: Any = ({"maximize": "strict_f1"},), **algorithm: Any) -> SearchSpace:
    content = {
        "objective": list(objective),
        "version": 1,
        "study": "known",
        "corpus": {"path": "corpus"},
        "algorithm": {"sampler": "random", **algorithm},
        "backbones": {"tiny": {"scratch": TINY}},
        "space": {
            "backbone": "tiny",
            "formulation": {"token_classification": {"head": "linear"}},
            "finetuning": {"full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}}},
            "weight_decay": {"uniform": [0.0, 1.0]},
            "window_tokens": 96,
        },
    }
    return build_space(SpaceFile.model_validate(content), "space.yaml")


def create(storage: BaseStorage, space: SearchSpace, objectives: tuple[Objective, ...] = SCORE) -> Ledger:
    return Ledger.create(storage, "known", objectives, space.file.algorithm, {"note": [1, 2]})


def run_trial(ledger: Ledger, space: SearchSpace, *scores: float, metric: str = "strict_f1") -> int:
    """Run a trial with one score per epoch to its end."""
    number, _ = ledger.ask(space)
    for epoch, score in enumerate(scores, start=1):
        ledger.report(number, epoch, {metric: score})
    ledger.end(number, *ledger.classify_end(number, finished=True))
    return number


def test_a_complete_trial_has_the_metrics_of_its_best_epoch(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number = run_trial(ledger, space, 0.4, 0.6, 0.6, 0.5)
    record = ledger.record(number)
    assert (record.state, record.best_epoch, record.metrics) == ("complete", 2, {"strict_f1": 0.6})
    assert record.epochs == {epoch: {"strict_f1": score} for epoch, score in enumerate((0.4, 0.6, 0.6, 0.5), start=1)}
    assert record.as_json()["epochs"] == 4
    (trial,) = storage.get_all_trials(0)
    assert trial.value == 0.6
    assert trial.intermediate_values == {1: 0.4, 2: 0.6, 3: 0.6, 4: 0.5}


def test_an_epoch_is_stored_once(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number, _ = ledger.ask(space)
    assert ledger.report(number, 1, {"strict_f1": 0.1})
    assert not ledger.report(number, 1, {"strict_f1": 0.9})
    assert ledger.record(number).epochs == {1: {"strict_f1": 0.1}}


def test_each_kind_of_end_is_stored_with_its_reason(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    ends = {
        "pruned": (None, TrialState.PRUNED),
        "infeasible": ("out of memory", TrialState.PRUNED),
        "failed": ("ValueError", TrialState.FAIL),
    }
    for state, (reason, _) in ends.items():
        number, _ = ledger.ask(space)
        ledger.end(number, state, reason)  # type: ignore[arg-type]
    assert {r.state: r.reason for r in ledger.records()} == {state: reason for state, (reason, _) in ends.items()}
    assert [trial.state for trial in storage.get_all_trials(0)] == [state for _, state in ends.values()]
    assert ledger.best() is None


def test_a_trial_without_a_finite_score_has_failed(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number, _ = ledger.ask(space)
    assert ledger.classify_end(number, finished=False) == ("pruned", None)
    assert ledger.classify_end(number, finished=True) == ("failed", "strict_f1 is not a finite number")
    ledger.report(number, 1, {"strict_f1": math.nan})
    for finished in (False, True):
        assert ledger.classify_end(number, finished=finished) == ("failed", "strict_f1 is not a finite number")


@pytest.mark.parametrize("scores", [(math.nan, 0.4, 0.6), (0.4, math.nan, 0.6), (0.4, 0.6, math.nan)])
def test_an_epoch_without_a_finite_score_does_not_fail_a_trial(
    storage: BaseStorage, space: SearchSpace, scores: tuple[float, ...]
) -> None:
    ledger = create(storage, space)
    record = ledger.record(run_trial(ledger, space, *scores))
    assert (record.state, record.best_epoch) == ("complete", scores.index(0.6) + 1)
    best = ledger.best()
    assert best is not None
    assert best.metrics == {"strict_f1": 0.6}


def test_a_study_of_the_training_loss_reports_the_lowest_loss(storage: BaseStorage) -> None:
    objectives = [{"minimize": "train_loss"}, {"maximize": "strict_f1"}]
    space = make_space(objectives[:1])
    assert make_space(objectives).file.selection == "train_loss"
    assert make_space(objectives[::-1]).file.selection == "strict_f1"
    ledger = create(storage, space, LOSS)
    number, config = ledger.ask(space)
    assert config.selection == "train_loss"
    for epoch, loss in enumerate((0.3, 0.1, 0.2), start=1):
        ledger.report(number, epoch, {"strict_f1": loss, "train_loss": loss})
    ledger.end(number, *ledger.classify_end(number, finished=True))
    assert ledger.record(number).metrics["train_loss"] == 0.1
    assert storage.get_trial(0).value == 0.1


def test_an_interrupted_trial_resumes_with_its_epochs(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number, config = ledger.ask(space)
    ledger.report(number, 1, {"strict_f1": 0.1})
    assert ledger.interrupt("power cut") == [number]

    resumed = Ledger.open(storage, "known", space.file.algorithm)
    (record,) = resumed.find_interrupted_trials()
    assert (record.number, record.config, record.state, record.reason) == (number, config, "interrupted", "power cut")
    resumed.resume_trial(number)
    assert resumed.record(number).state == "running"
    resumed.report(number, 2, {"strict_f1": 0.2})
    resumed.end(number, *resumed.classify_end(number, finished=True))
    (done,) = resumed.records()
    assert (done.state, done.epochs) == ("complete", {1: {"strict_f1": 0.1}, 2: {"strict_f1": 0.2}})
    assert resumed.find_interrupted_trials() == []


def test_the_best_trial_is_the_first_with_the_best_value(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    for score in (0.2, 0.7, 0.7):
        run_trial(ledger, space, score)
    best = ledger.best()
    assert best is not None
    assert (best.number, best.metrics) == (1, {"strict_f1": 0.7})
    assert ledger.maximized


def test_a_minimized_objective_has_its_lowest_value_as_best(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space, MEMORY)
    for megabytes in (300.0, 100.0, 200.0):
        run_trial(ledger, space, megabytes, metric="peak_memory_mb")
    best = ledger.best()
    assert best is not None
    assert best.number == 1
    assert not ledger.maximized


def test_several_objectives_are_stored_with_all_values(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space, (*SCORE, *MEMORY))
    number, _ = ledger.ask(space)
    ledger.report(number, 1, {"strict_f1": 0.5, "peak_memory_mb": 100.0})
    ledger.end(number, "complete")
    (trial,) = storage.get_all_trials(0)
    assert trial.values == [0.5, 100.0]
    assert ledger.metrics == ("strict_f1", "peak_memory_mb")


def test_locations_are_stored_before_and_after_the_end_of_a_trial(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number, _ = ledger.ask(space)
    ledger.set_locations(number, {"run_id": "abc"})
    ledger.end(number, "pruned")
    ledger.set_locations(number, {"checkpoint": "file:///best"})
    assert (ledger.record(number).run_id, ledger.record(number).checkpoint) == ("abc", "file:///best")
    reopened = Ledger.open(storage, "known").records()[number]
    assert (reopened.run_id, reopened.checkpoint) == ("abc", "file:///best")


def test_points_are_evaluated_first_and_in_order(storage: BaseStorage) -> None:
    points = [{"weight_decay": 0.25}, {"weight_decay": 0.75}]
    space = make_space(points_to_evaluate=points)
    ledger = create(storage, space)
    assert ledger.records() == [], "a point that no driver has started is not a trial"
    assert [ledger.ask(space)[1].weight_decay for _ in points] == [0.25, 0.75]


def test_a_draw_that_was_not_completed_is_repeated_by_the_next_driver(storage: BaseStorage, space: SearchSpace) -> None:
    undisturbed = create(InMemoryStorage(), space)
    expected = [undisturbed.ask(space)[1] for _ in range(2)]

    class Killed(BaseException):
        """The end of the driver process."""

    ledger = create(storage, space)
    suggest = space.suggest

    def draw_and_die(chooser: Any) -> Any:
        suggest(chooser)
        raise Killed

    space.suggest = draw_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        ledger.ask(space)
    space.suggest = suggest  # type: ignore[method-assign]
    assert ledger.find_interrupted_trials() == []
    resumed = Ledger.open(storage, "known", space.file.algorithm)
    assert [resumed.ask(space) for _ in range(2)] == list(enumerate(expected))


def test_importances_need_enough_complete_trials(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    for _ in range(9):
        number, config = ledger.ask(space)
        ledger.report(number, 1, {"strict_f1": config.weight_decay})
        ledger.end(number, "complete")
    assert ledger.compute_importances() == {}
    for _ in range(21):
        number, config = ledger.ask(space)
        ledger.report(number, 1, {"strict_f1": config.weight_decay})
        ledger.end(number, "complete")
    importances = ledger.compute_importances()
    assert next(iter(importances)) == "weight_decay"
    assert importances["weight_decay"] > 0.8


def test_attributes_of_a_study_are_stored(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    ledger.set_attribute("server", "http://mlflow")
    reopened = Ledger.open(storage, "known")
    assert (reopened.name, reopened.attributes["note"], reopened.attributes["server"]) == (
        "known",
        [1, 2],
        "http://mlflow",
    )


def test_a_study_is_neither_created_twice_nor_opened_under_another_name(
    storage: BaseStorage, space: SearchSpace
) -> None:
    create(storage, space)
    with pytest.raises(InputError, match="study: study 'known' exists; a new name; continue it with: clinie resume"):
        create(storage, space)
    with pytest.raises(InputError, match="no study 'two' in this home; one of known"):
        Ledger.open(storage, "two")


def test_a_configuration_with_renamed_keys_is_one_clear_line(storage: BaseStorage, space: SearchSpace) -> None:
    ledger = create(storage, space)
    number, config = ledger.ask(space)
    values = config.model_dump(mode="json")
    storage.set_trial_user_attr(number, "config", {**values, "averaging": values.pop("ema_decay")})
    with pytest.raises(InputError) as caught:
        Ledger.open(storage, "known").records()
    assert str(caught.value) == (
        "ledger: trial 0: a configuration of another version of clinie (averaging); use the version that searched this"
        " study, or search the space as a new study"
    )
