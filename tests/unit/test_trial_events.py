"""The searcher, the recorder and the order of a trial's events, with a ledger in memory and without Ray processes."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from dataclasses import dataclass, field
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from clinie_core.config import TrialConfig
from clinie_core.errors import DiskFull
from search.config.search_space import SearchSpace
from search.ledger import records
from search.ledger.ledger import Ledger
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult, TrialFailure
from search.trials.retry import MAX_ACTOR_LOSSES
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher
from tests.small_space import build_small_space

FINISHED = "FINISHED"


@dataclass
class StubTrial:
    """The part of a Tune trial that the recorder reads."""

    config: dict[str, Any]
    last_result: dict[str, Any] | None = None
    metric_analysis: dict[str, Any] = field(default_factory=dict)
    metric_n_steps: dict[str, Any] = field(default_factory=dict)


class EventLog(TrialListener):
    """Lists each event with the state and the epochs that the ledger has at that time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.events: list[tuple[str, str, list[int]]] = []

    def _add(self, event: str, number: int) -> None:
        record = self._ledger.record(number)
        self.events.append((event, record.state, sorted(record.epochs)))

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        assert config == self._ledger.record(number).config
        self._add("start", number)

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        self._add(f"epoch {result.epoch}", number)

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        self._add(f"end {state}", number)

    def on_trial_recorded(self, number: int) -> None:
        self._add("recorded", number)


class Search:
    """A searcher and a recorder on one ledger, called as Ray Tune calls them."""

    def __init__(self, ledger: Ledger, space: SearchSpace, trials: int) -> None:
        self.running = RunningTrials()
        self.searcher = LedgerSearcher(ledger, space, trials, self.running)
        self.log = EventLog(ledger)
        self.failure_reason: str | None = None
        self.recorder = StudyRecorder(ledger, self.running, [self.log], lambda trial: self.failure_reason)

    def start(self) -> StubTrial:
        suggested = self.searcher.suggest("id")
        assert isinstance(suggested, dict)
        trial = StubTrial(suggested)
        self.recorder.on_trial_start(0, [], trial)
        return trial

    def report(self, trial: StubTrial, result: EpochResult | TrialFailure) -> None:
        trial.last_result = (trial.last_result or {}) | result.to_tune_result()
        self.recorder.on_trial_result(0, [], trial, trial.last_result)

    def complete(self, trial: StubTrial) -> None:
        self.recorder.on_trial_complete(0, [], trial)


@pytest.fixture
def space() -> SearchSpace:
    return build_small_space("events")


@pytest.fixture
def ledger(space: SearchSpace) -> Ledger:
    return Ledger.create(InMemoryStorage(), "events", space.file.objective, space.file.algorithm, {})


def score(epoch: int, *, finished: bool = False) -> EpochResult:
    return EpochResult(epoch, {"strict_f1": epoch / 10}, finished)


def test_the_end_is_announced_before_the_ledger_write_and_all_else_after(ledger: Ledger, space: SearchSpace) -> None:
    search = Search(ledger, space, 1)
    trial = search.start()
    search.report(trial, score(1))
    search.report(trial, score(2, finished=True))
    search.complete(trial)
    assert search.log.events == [
        ("start", "running", []),
        ("epoch 1", "running", [1]),
        ("epoch 2", "running", [1, 2]),
        ("end complete", "running", [1, 2]),
        ("recorded", "complete", [1, 2]),
    ]


def test_a_stopped_trial_is_pruned_with_all_its_epochs(ledger: Ledger, space: SearchSpace) -> None:
    search = Search(ledger, space, 1)
    trial = search.start()
    search.report(trial, score(1))
    search.complete(trial)
    assert search.log.events[-2:] == [("end pruned", "running", [1]), ("recorded", "pruned", [1])]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_failed_trial_has_its_reason(ledger: Ledger, space: SearchSpace, epochs: int) -> None:
    search = Search(ledger, space, 1)
    trial = search.start()
    for epoch in range(1, epochs + 1):
        search.report(trial, score(epoch))
    search.report(trial, TrialFailure("infeasible", "out of memory"))
    search.complete(trial)
    (record,) = ledger.records()
    assert (record.state, record.reason, len(record.epochs)) == ("infeasible", "out of memory", epochs)


def test_a_resumed_trial_comes_first_and_repeats_no_event(ledger: Ledger, space: SearchSpace) -> None:
    first = Search(ledger, space, 2)
    first.report(first.start(), score(1))
    ledger.interrupt("power cut")

    resumed = Search(ledger, space, 2)
    trial = resumed.start()
    for epoch in (1, 2):
        resumed.report(trial, score(epoch))
    assert resumed.log.events == [("start", "running", [1]), ("epoch 2", "running", [1, 2])]
    assert resumed.start().config["number"] == 1


def test_a_trial_that_lost_its_actor_is_suggested_again(ledger: Ledger, space: SearchSpace) -> None:
    search = Search(ledger, space, 1)
    trial = search.start()
    assert search.searcher.suggest("id") is None
    for _ in range(MAX_ACTOR_LOSSES):
        search.recorder.on_trial_error(0, [], trial)
        again = search.start()
        assert again.config == trial.config
    search.recorder.on_trial_error(0, [], trial)
    assert search.searcher.suggest("id") == FINISHED
    (record,) = ledger.records()
    assert (record.state, record.reason) == ("failed", "the Tune actor of the trial was lost 20 times")
    assert [event for event, _, _ in search.log.events] == ["start", "end failed", "recorded"]


def test_an_error_of_the_pool_fails_the_trial(ledger: Ledger, space: SearchSpace) -> None:
    search = Search(ledger, space, 1)
    trial = search.start()
    search.failure_reason = "the worker pool has closed"
    search.recorder.on_trial_error(0, [], trial)
    (record,) = ledger.records()
    assert (record.state, record.reason) == ("failed", "the worker pool has closed")


def test_a_full_disk_ends_the_search_and_leaves_its_trials_unchanged(ledger: Ledger, space: SearchSpace) -> None:
    search = Search(ledger, space, 3)
    trial, other = search.start(), search.start()
    search.report(trial, TrialFailure("disk_full", "trials/00000 cannot be written"))
    with pytest.raises(DiskFull, match="trials/00000 cannot be written"):
        search.complete(trial)
    for call in (lambda: search.complete(other), lambda: search.searcher.suggest("id")):
        with pytest.raises(DiskFull):
            call()
    assert [record.state for record in ledger.records()] == ["running", "running"]
    assert isinstance(search.running.error, DiskFull)


def test_the_driver_parses_no_configuration_that_it_has_drawn(
    ledger: Ledger, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(ledger, space, 1)

    def parse(trial: object) -> None:
        raise AssertionError("a configuration was parsed")

    monkeypatch.setattr(records, "_read_config", parse)
    trial = search.start()
    search.report(trial, score(1))
    search.recorder.on_trial_error(0, [], trial)
    again = search.start()
    search.report(again, score(2))
    assert ledger.record(0).epochs.keys() == {1, 2}
