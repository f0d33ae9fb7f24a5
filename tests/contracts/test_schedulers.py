"""The contract of schedulers: what every row of the registry does."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.config.algorithms import SCHEDULERS
from search.config.objectives import Objective
from search.config.space_file import Algorithm
from search.config.stopping import FEWEST_STEPS, StoppingSettings
from search.ledger.records import TrialRecord
from search.trials.result import EpochResult
from search.trials.spec import TrialSpec
from search.tune.schedulers import WITHOUT_SCORE, forget_trial, make_scheduler, replay_trials

EPOCHS, GRACE_EPOCHS, STARTUP_TRIALS = 9, 2, 3
NEVER_STOP = {"none"}
"""Rows that stop no trial by definition."""
MAXIMIZE, MINIMIZE = Objective(maximize="strict_f1"), Objective(minimize="train_loss")
Score = Callable[[int, int], float]


@dataclass(frozen=True, eq=False)
class StubTrial:
    """The part of a Tune trial that schedulers read."""

    trial_id: str
    config: dict[str, Any]
    status: str


def stub_trial(number: int, status: str = "RUNNING") -> StubTrial:
    spec = TrialSpec(number, "{}", "tiny", memory_key="tiny", micro_batch=8, can_recompute=False)
    config = spec.to_tune_config()
    return StubTrial(f"trial-{number}", config, status)


class StubController:
    """The part of Tune's controller that schedulers read: here with a trial that has not started."""

    def __init__(self, *live: StubTrial) -> None:
        self.live = live

    def get_live_trials(self) -> Iterable[StubTrial]:
        return self.live


def scheduler_of(name: str, objective: Objective = MAXIMIZE) -> TrialScheduler:
    algorithm = Algorithm(scheduler=name, startup_trials=STARTUP_TRIALS, reduction_factor=3)
    return make_scheduler(StoppingSettings(algorithm, (objective,), EPOCHS, GRACE_EPOCHS))


def run_trials(
    scheduler: TrialScheduler,
    score: Score,
    trials: int,
    metric: str = "strict_f1",
    steps_per_epoch: int = 100,
) -> list[int]:
    """Run trials one at a time and return the number of epochs that each was allowed to run."""
    lengths = []
    for number in range(trials):
        trial = stub_trial(number)
        controller = StubController(trial, stub_trial(number + 1, "PENDING"))
        scheduler.on_trial_add(controller, trial)
        for epoch in range(1, EPOCHS + 1):
            finished = epoch == EPOCHS
            metrics = {metric: score(number, epoch), "optimizer_steps": float(steps_per_epoch * epoch)}
            result = EpochResult(epoch, metrics, finished).to_tune_result()
            decision = TrialScheduler.STOP if finished else scheduler.on_trial_result(controller, trial, result)
            assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP), "no trial is paused"
            if decision == TrialScheduler.STOP:
                scheduler.on_trial_complete(controller, trial, result)
                lengths.append(epoch)
                break
    return lengths


@pytest.mark.parametrize("name", SCHEDULERS)
class TestScheduler:
    @pytest.mark.parametrize(("objective", "sign"), [(MAXIMIZE, 1.0), (MINIMIZE, -1.0)])
    def test_a_clearly_bad_trial_is_stopped_and_a_good_one_is_not(
        self, name: str, objective: Objective, sign: float
    ) -> None:
        def score(number: int, epoch: int) -> float:
            if number == 10:
                return sign * -1.0
            return sign * (number + 1) * epoch

        lengths = run_trials(scheduler_of(name, objective), score, 12, objective.metric)
        bad, best = lengths[10], lengths[11]
        assert best == EPOCHS
        assert bad == EPOCHS if name in NEVER_STOP else bad < EPOCHS

    def test_no_trial_is_stopped_within_the_grace_period(self, name: str) -> None:
        lengths = run_trials(scheduler_of(name), lambda number, epoch: -float(number), 20)
        assert min(lengths) >= GRACE_EPOCHS

    def test_a_score_of_zero_stops_no_trial_before_it_has_made_enough_optimizer_steps(self, name: str) -> None:
        def score(number: int, epoch: int) -> float:
            if number < 10:
                return 0.1 * (number + 1)
            return 2.0 if number == 10 and epoch >= 5 else 0.0

        late, zero = run_trials(scheduler_of(name), score, 12, steps_per_epoch=FEWEST_STEPS // 5)[10:]
        assert late == EPOCHS
        assert zero == EPOCHS if name in NEVER_STOP else 5 <= zero < EPOCHS

    def test_equal_results_stop_no_trial(self, name: str) -> None:
        assert run_trials(scheduler_of(name), lambda number, epoch: 0.5, 12) == [EPOCHS] * 12

    @pytest.mark.parametrize("invalid", [math.nan, -math.inf])
    def test_results_that_are_not_finite_do_not_disturb_other_trials(self, name: str, invalid: float) -> None:
        def score(number: int, epoch: int) -> float:
            return invalid if number < 2 else 0.5

        assert run_trials(scheduler_of(name), score, 12) == [WITHOUT_SCORE] * 2 + [EPOCHS] * 10

    def test_one_epoch_without_a_finite_score_stops_no_trial(self, name: str) -> None:
        def score(number: int, epoch: int) -> float:
            return math.nan if (number + epoch) % EPOCHS == 1 else 0.5

        assert run_trials(scheduler_of(name), score, 12) == [EPOCHS] * 12

    def test_the_same_results_lead_to_the_same_decisions(self, name: str) -> None:
        curves = random.Random(7)
        values = [[curves.random() for _ in range(EPOCHS)] for _ in range(20)]
        first, second = (
            run_trials(scheduler_of(name), lambda number, epoch: values[number][epoch - 1], 20) for _ in range(2)
        )
        assert first == second
        assert (first == [EPOCHS] * 20) == (name in NEVER_STOP)

    def test_trials_of_an_earlier_run_count_as_if_the_search_had_not_been_interrupted(self, name: str) -> None:
        curves = random.Random(7)
        values = [[curves.random() for _ in range(EPOCHS)] for _ in range(20)]
        uninterrupted = run_trials(scheduler_of(name), lambda number, epoch: values[number][epoch - 1], 20)
        records = [
            TrialRecord(
                number,
                "complete" if length == EPOCHS else "pruned",
                config=None,
                parameters={},
                epochs={epoch: {"strict_f1": values[number][epoch - 1]} for epoch in range(1, length + 1)},
            )
            for number, length in enumerate(uninterrupted[:12])
        ]
        resumed = scheduler_of(name)
        replay_trials(resumed, records)
        lengths = run_trials(resumed, lambda number, epoch: values[number + 12][epoch - 1], 8)
        assert lengths == uninterrupted[12:]

    def test_running_trials_of_other_drivers_count_as_own_ones(self, name: str) -> None:
        curves = random.Random(7)
        values = [[curves.random() for _ in range(EPOCHS)] for _ in range(20)]
        alone = run_trials(scheduler_of(name), lambda number, epoch: values[number][epoch - 1], 20)

        def record(number: int, epochs: int) -> TrialRecord:
            stored = {epoch: {"strict_f1": values[number][epoch - 1]} for epoch in range(1, epochs + 1)}
            return TrialRecord(number, "running", config=None, parameters={}, epochs=stored)

        scheduler, forgetful = scheduler_of(name), scheduler_of(name)
        for number, length in enumerate(alone[:12]):
            replay_trials(scheduler, [record(number, epochs) for epochs in (1, length, length)])
            replay_trials(forgetful, [record(number, length)])
            forget_trial(forgetful, number)
        assert run_trials(scheduler, lambda number, epoch: values[number + 12][epoch - 1], 8) == alone[12:]
        assert run_trials(forgetful, lambda number, epoch: values[number][epoch - 1], 20) == alone

    def test_a_trial_that_fails_before_its_first_epoch_is_accepted(self, name: str) -> None:
        scheduler, trial = scheduler_of(name), stub_trial(0)
        scheduler.on_trial_add(StubController(trial), trial)
        scheduler.on_trial_complete(StubController(), trial, {"failure": "infeasible", "reason": "out of memory"})
        assert run_trials(scheduler, lambda number, epoch: 0.5, 8) == [EPOCHS] * 8

    def test_the_pending_trial_with_the_lowest_number_starts_first(self, name: str) -> None:
        live = [stub_trial(0), stub_trial(12, "PENDING"), stub_trial(3, "PENDING"), stub_trial(1)]
        chosen = scheduler_of(name).choose_trial_to_run(StubController(*live))
        assert chosen is live[2]
        assert scheduler_of(name).choose_trial_to_run(StubController(live[0])) is None


def test_rungs_in_seconds_compare_trials_after_equal_times() -> None:
    """A slow trial reaches the first rung in its first epoch, a fast one in its fourth."""
    algorithm = Algorithm(scheduler="asha", grace_seconds=40)
    scheduler = make_scheduler(StoppingSettings(algorithm, (MAXIMIZE,), EPOCHS))
    controller = StubController()

    def count_epochs(number: int, seconds: float, scores: list[float]) -> int:
        trial = stub_trial(number)
        for epoch, score in enumerate(scores, start=1):
            result = EpochResult(epoch, {"strict_f1": score, "seconds": seconds}).to_tune_result()
            if scheduler.on_trial_result(controller, trial, result) == TrialScheduler.STOP:
                return epoch
        return len(scores)

    assert count_epochs(0, 40.0, [0.6] * 2) == 2
    assert count_epochs(1, 10.0, [0.1, 0.2, 0.3, 0.7] + [0.7] * 4) == 8
    assert count_epochs(2, 10.0, [0.1, 0.2, 0.3, 0.4] + [0.7] * 4) == 4
