"""Trials of one study for several drivers, in a real PostgreSQL, without Ray."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config.space_file import Algorithm
from search.config.stopping import StoppingSettings
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import Command
from search.ledger.database import open_database
from search.ledger.driver import Driver
from search.ledger.leases import StudyLeases
from search.ledger.ledger import Ledger
from search.ledger.shared_trials import SharedTrials
from search.trials.result import EpochResult
from search.trials.spec import TrialSpec
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.schedulers import make_scheduler
from search.tune.trials_elsewhere import TrialsElsewhere
from tests.small_space import build_small_space

if TYPE_CHECKING:
    from tests.servers import PostgresServer

HERE = Driver.of_this_process()
FINALISTS = {"trials": 1, "seeds": 2}


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    postgres.create("shared_trials")
    return postgres.url("shared_trials")


def never(number: int) -> bool:
    return False


class SimulatedDriver:
    """A driver without worker pool; each of its trials has one epoch."""

    def __init__(self, url: str, study: str, name: str) -> None:
        storage = open_database(url)
        self.space = build_small_space(study, budget={"trials": 6, "epochs": 1}, finalists=FINALISTS)
        algorithm = self.space.file.algorithm.model_copy(
            update={"points_to_evaluate": ({"finetuning.full.learning_rate": 2e-4},)}
        )
        self.ledger = (
            Ledger.open(storage, study, algorithm)
            if name != "first"
            else Ledger.create(storage, study, self.space.file.objective, algorithm, {})
        )
        self.leases = StudyLeases(storage, study, Driver(name, f"machine of {name}", HERE.pid, HERE.started))
        self.leases.join()
        self.ledger.leases = self.leases
        self.trials = SharedTrials(self.ledger, self.leases, self.space.file.finalists)

    def take(self, budget: int = 6) -> int | None:
        taken = self.trials.take(self.space, budget, never)
        return taken[0] if taken is not None else None

    def end(self, number: int) -> None:
        self.ledger.report(number, 1, {"strict_f1": number / 10})
        self.ledger.end(number, "complete")


def test_drivers_share_the_budget_and_the_runs_of_finalists(url: str) -> None:
    drivers = [SimulatedDriver(url, "budget", name) for name in ("first", "second", "third")]
    taken: Counter[int] = Counter()

    def work(driver: SimulatedDriver) -> None:
        while True:
            number = driver.take()
            if number is not None:
                taken[number] += 1
                driver.end(number)
            elif not (counts := driver.trials.count(6)).free and not counts.elsewhere:
                return

    threads = [threading.Thread(target=work, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == Counter(range(7)), "six trials of the budget and one run of the finalist with another seed"
    records = drivers[0].ledger.records()
    assert {record.state for record in records} == {"complete"}
    assert [record.repeats for record in records] == [None] * 6 + [5]
    assert records[0].parameters == {"finetuning.full.learning_rate": 2e-4}
    digests = {record.config.digest() for record in records if record.config is not None}
    assert len(digests) == 7
    assert drivers[0].leases.read() == {}, "the lease of a trial ends with the trial"
    for driver in drivers:
        driver.leases.leave()


def test_the_trials_of_a_driver_that_leaves_are_continued(url: str) -> None:
    first, second = (SimulatedDriver(url, "leaving", name) for name in ("first", "second"))
    numbers = [first.take(), first.take(), second.take()]
    assert numbers == [0, 1, 2]
    first.ledger.report(0, 1, {"strict_f1": 0.5})
    counts = second.trials.count(6)
    assert (counts.elsewhere, counts.epochs) == (2, {0: 1, 1: 0})
    assert first.ledger.interrupt("a signal") == [0, 1], "only its own trials"
    first.leases.leave()
    counts = second.trials.count(6)
    assert (counts.free, counts.elsewhere, counts.interrupted) == (5, 0, (0, 1))
    assert second.trials.take(second.space, 6, lambda number: number == 0) is not None
    record = second.ledger.record(1)
    assert (record.state, record.driver, second.ledger.has_drawn(1)) == ("running", "second", False)
    assert [number for number, _ in second.trials.take_held(lambda number: number == 0)] == [0]
    assert second.ledger.record(0).epochs == {1: {"strict_f1": 0.5}}
    assert second.leases.find_own() == [0, 1, 2]
    assert second.trials.count(6).epochs == {}
    second.leases.leave()


def test_an_early_stop_compares_with_the_running_trials_of_other_drivers(url: str) -> None:
    first, second = (SimulatedDriver(url, "rungs", name) for name in ("first", "second"))
    algorithm = Algorithm(scheduler="asha", reduction_factor=2)
    settings = StoppingSettings(algorithm, first.space.file.objective, epochs=4, grace_epochs=1)
    scheduler = make_scheduler(settings)
    recorder = StudyRecorder(second.ledger, RunningTrials(), [], lambda trial: None)
    elsewhere = TrialsElsewhere(second.ledger, scheduler, recorder)
    assert [first.take(), first.take(), second.take()] == [0, 1, 2]
    _, config = second.trials.take(second.space, 6, never) or (3, None)
    assert config is not None

    def stops(number: int, score: float) -> bool:
        elsewhere.add_epochs(second.trials.count(6).epochs)
        trial = Trial("stub", config=TrialSpec.from_config(number, config).to_tune_config(), stub=True)
        result = EpochResult(1, {"strict_f1": score}).to_tune_result()
        return bool(scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP)

    assert not stops(2, 0.3), "it is the first trial at this rung"
    first.ledger.report(0, 1, {"strict_f1": 0.8})
    first.ledger.report(1, 1, {"strict_f1": 0.9})
    assert stops(3, 0.4), "two running trials of the other driver are better"
    for driver in (first, second):
        driver.leases.leave()


def test_a_draw_that_its_driver_did_not_complete_is_completed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (SimulatedDriver(url, "incomplete", name) for name in ("first", "second"))
    assert first.take() == 0

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    for target, method in ((type(first.space), "suggest"), (StudyLeases, "claim")):
        with monkeypatch.context() as patch:
            patch.setattr(target, method, crash)
            with pytest.raises(KeyboardInterrupt):
                first.take()
        assert first.ledger.count_trials() == 2
    first.leases.leave()
    assert [second.take() for _ in range(7)] == [0, 1, 2, 3, 4, 5, None]
    second.leases.leave()


def test_each_command_has_one_decision_and_an_effect_for_every_driver(url: str) -> None:
    first, second = (SimulatedDriver(url, "commands", name) for name in ("first", "second"))
    processors = [CommandProcessor(driver.ledger, driver.space) for driver in (first, second)]
    assert first.take() == 0
    log = CommandLog(first.ledger)
    log.send(Command("more", "add-budget", 1, trials=2))
    log.send(Command("clone", "clone", 2, trial=0, changes={"finetuning.full.learning_rate": 3e-4}))
    threads = [threading.Thread(target=processor.process) for processor in processors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.send(Command("stop", "stop", 3, trial=0))
    assert [command.id for command in processors[1].process()] == ["stop"]
    assert [command.id for command in processors[0].process()] == ["stop"]
    assert processors[0].state == processors[1].state
    assert processors[0].trials == processors[1].trials == 9
    assert [entry.decision.order for entry in log.read() if entry.decision] == [0, 1, 2]
    assert len(first.ledger.queue.find_clones()) == 1
    numbers = []
    while (number := second.take(9)) is not None:
        numbers.append(number)
    assert len(numbers) == 8
    clone = first.ledger.record(first.ledger.queue.find_clones()["clone"])
    assert clone.parameters == {"finetuning.full.learning_rate": 3e-4}
    for driver in (first, second):
        driver.leases.leave()
