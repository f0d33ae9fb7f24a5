"""The budget of a study in time, and the rule that ends a search."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from pydantic import ValidationError

from clinie_core.errors import InputError
from search.config.search_space import SearchSpace
from search.config.space_file import Budget, Cost, SpaceFile, StopWhen
from search.config.validation import build_space
from search.ledger.budget import StudyBudget, estimate_gain, read_spent_hours
from search.ledger.ledger import Ledger
from search.trials.result import EpochResult
from search.trials.usage import COST
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher

CONTENT: dict[str, Any] = {
    "version": 1,
    "study": "budget",
    "corpus": {"path": "corpus"},
    "algorithm": {"sampler": "random"},
    "backbones": {"tiny": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}}},
    "space": {
        "backbone": "tiny",
        "formulation": "token_classification",
        "finetuning": {"full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}}},
    },
}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space(SpaceFile.model_validate(CONTENT), "space.yaml")


@pytest.fixture
def storage(space: SearchSpace) -> BaseStorage:
    storage = InMemoryStorage()
    Ledger.create(storage, space.file.study, space.file.objective, space.file.algorithm, {})
    return storage


def open_ledger(storage: BaseStorage, space: SearchSpace) -> Ledger:
    return Ledger.open(storage, space.file.study, space.file.algorithm)


def run_trial(
    ledger: Ledger, space: SearchSpace, budget: StudyBudget, score: float, seconds: float, cost: float = 0.0
) -> None:
    number, _ = ledger.ask(space)
    metrics = {"strict_f1": score, "seconds": seconds, COST: cost}
    ledger.report(number, 1, metrics)
    budget.on_epoch_end(number, EpochResult(1, metrics))
    budget.on_trial_end(number, "complete", None)
    ledger.end(number, "complete")


def test_hours_count_over_all_runs(space: SearchSpace, storage: BaseStorage) -> None:
    ledger = open_ledger(storage, space)
    first = StudyBudget(ledger, Budget(), 0)
    first.add_time()
    first.save()
    after_first = read_spent_hours(ledger)
    first.add_time(is_paused=True)
    assert first.hours == after_first
    assert after_first > 0
    second = StudyBudget(open_ledger(storage, space), Budget(hours=after_first), 0)
    assert second.hours >= after_first
    assert second.find_spent_limit() == f"budget.hours of {after_first:g} is spent, over all runs of this study"
    assert StudyBudget(ledger, Budget(hours=1), 0).find_spent_limit() is None


def test_gpu_hours_are_the_training_time_of_all_trials(space: SearchSpace, storage: BaseStorage) -> None:
    ledger = open_ledger(storage, space)
    budget = StudyBudget(ledger, Budget(gpu_hours=4), 2)
    run_trial(ledger, space, budget, 0.5, seconds=3600)
    assert budget.gpu_hours == pytest.approx(2)
    assert budget.find_spent_limit() is None
    resumed = StudyBudget(open_ledger(storage, space), Budget(gpu_hours=4), 2)
    run_trial(resumed._ledger, space, resumed, 0.6, seconds=3600)
    assert resumed.find_spent_limit() == "budget.gpu_hours of 4 is spent, over all runs of this study"


def test_cost_counts_over_all_runs(space: SearchSpace, storage: BaseStorage) -> None:
    limit = Budget(cost=Cost(amount=5, currency="EUR"))
    ledger = open_ledger(storage, space)
    first = StudyBudget(ledger, limit, 1)
    run_trial(ledger, space, first, 0.5, seconds=60, cost=3.0)
    assert (first.cost, first.is_use_spent) == (3.0, False)
    second = StudyBudget(open_ledger(storage, space), limit, 1)
    assert second.find_spent_limit() is None
    run_trial(second._ledger, space, second, 0.6, seconds=60, cost=2.0)
    assert second.is_use_spent
    assert second.find_spent_limit() == "budget.cost of 5 EUR is spent, over all runs of this study"
    assert StudyBudget(open_ledger(storage, space), limit).cost == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("resources", "found"),
    [
        ({}, "a limit in EUR, but the resource class default has no price"),
        ({"price_per_hour": 2, "currency": "USD"}, "a limit in EUR, but the resource class default has a price in USD"),
    ],
)
def test_a_limit_on_cost_needs_prices_in_its_currency(resources: dict[str, Any], found: str) -> None:
    budget = {"cost": {"amount": 5, "currency": "EUR"}}
    file = SpaceFile.model_validate({**CONTENT, "resources": resources, "budget": budget})
    with pytest.raises(InputError) as error:
        build_space(file, "space.yaml")
    assert [problem.found for problem in error.value.problems] == [found]
    assert error.value.problems[0].where == "space.yaml: budget.cost"


def test_a_limit_on_cost_without_a_currency_is_rejected() -> None:
    with pytest.raises(ValidationError, match=r"found 5 without a currency; .*\{amount: 5, currency: EUR\}"):
        Budget.model_validate({"cost": 5})


@pytest.mark.parametrize(
    ("scores", "gain"),
    [
        ([0.5, 0.6], math.inf),  # too few
        ([None] * 20, math.inf),
        ([0.7] * 9 + [0.8] * 3, 0.1 / 5),  # it has improved in the latest five trials
        ([0.6, 0.8, *[0.5] * 10], 0.2 / 12),  # the best one is far ahead of the second
        ([0.8, 0.8, *[None] * 10], 0.0),
    ],
)
def test_expected_gain_of_a_further_trial(scores: list[float | None], gain: float) -> None:
    assert estimate_gain(scores) == pytest.approx(gain)


def test_a_search_ends_when_a_further_trial_is_not_worth_its_cost(space: SearchSpace, storage: BaseStorage) -> None:
    rule = Budget(stop_when=StopWhen(gain_per_hour=0.01, trials=6))
    ledger = open_ledger(storage, space)
    budget = StudyBudget(ledger, rule, 0)
    for score in (0.5, 0.6, 0.7, 0.8, 0.9):
        run_trial(ledger, space, budget, score, seconds=360)
    assert budget.find_end() is None
    for _ in range(8):
        run_trial(ledger, space, budget, 0.9, seconds=360)
    assert budget.find_end() == (
        "a further trial is expected to improve strict_f1 by 0 in 0.1 hours: 0 per hour,"
        " less than budget.stop_when.gain_per_hour of 0.01"
    )
    resumed = open_ledger(storage, space)
    searcher = LedgerSearcher(resumed, space, 100, RunningTrials())
    searcher.find_end = StudyBudget(resumed, rule, 0).find_end
    assert searcher.suggest("id") == "FINISHED"
    assert searcher.ended_because == budget.find_end()


def test_the_rule_lets_trials_that_have_started_end(space: SearchSpace, storage: BaseStorage) -> None:
    ledger = open_ledger(storage, space)
    started = LedgerSearcher(ledger, space, 5, RunningTrials()).suggest("id")
    ledger.interrupt("power cut")
    searcher = LedgerSearcher(ledger, space, 5, RunningTrials())
    searcher.find_end = lambda: "not worth it"
    assert searcher.suggest("id") == started
    assert searcher.suggest("id") is None
    assert searcher.unfinished == 1
