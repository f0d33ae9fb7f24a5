"""The time limit of a search that receives commands."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import pytest
from optuna.storages import InMemoryStorage

from search.config.search_space import SearchSpace
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import Command
from search.ledger.ledger import Ledger
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher
from search.tune.trial_control import TrialControl
from tests.small_space import build_small_space

SHORT = 1e-12
"""A time limit in hours that is over at the first step."""


@pytest.fixture
def space() -> SearchSpace:
    return build_small_space("limited", budget={"trials": 2, "epochs": 2, "hours": 1})


@pytest.fixture
def ledger(space: SearchSpace) -> Ledger:
    return Ledger.create(InMemoryStorage(), "limited", space.file.objective, space.file.algorithm, {})


def make_control(ledger: Ledger, space: SearchSpace, hours: float | None) -> tuple[TrialControl, LedgerSearcher]:
    running = RunningTrials()
    searcher = LedgerSearcher(ledger, space, 2, running)
    recorder = StudyRecorder(ledger, running, [], lambda trial: None)
    commands = CommandProcessor(ledger, space)
    return TrialControl(commands, running, searcher, recorder, lambda number: None, hours=hours), searcher


def test_a_search_ends_at_its_time_limit(ledger: Ledger, space: SearchSpace) -> None:
    assert make_control(ledger, space, SHORT)[1].suggest("id") == "FINISHED"
    assert isinstance(make_control(ledger, space, 1.0)[1].suggest("id"), dict)
    assert isinstance(make_control(ledger, space, None)[1].suggest("id"), dict)


def test_hours_are_added_to_the_time_limit_of_a_running_search(ledger: Ledger, space: SearchSpace) -> None:
    control, searcher = make_control(ledger, space, SHORT)
    CommandLog(ledger).send(Command("more", "add-budget", 1, hours=1.0))
    assert not control.is_over()
    assert isinstance(searcher.suggest("id"), dict)


def test_a_paused_search_suggests_nothing_and_does_not_end(ledger: Ledger, space: SearchSpace) -> None:
    control, searcher = make_control(ledger, space, 1.0)
    CommandLog(ledger).send(Command("pause", "pause", 1))
    assert searcher.suggest("id") is None
    assert searcher.unfinished == 0  # so that the worker groups end
    CommandLog(ledger).send(Command("resume", "resume", 2))
    control.apply_commands()
    assert searcher.unfinished == 2
    assert isinstance(searcher.suggest("id"), dict)
