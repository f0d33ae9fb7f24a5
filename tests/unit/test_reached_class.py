"""A trial that is resumed restarts in the resource class that it had reached."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from search.config.search_space import SearchSpace
from search.ledger.ledger import Ledger
from search.trials.spec import TrialSpec
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher
from tests.small_space import build_small_space


@pytest.mark.parametrize(
    ("reached", "tried"),
    [
        (None, ("small", "large", "huge")),
        ("large", ("large", "huge")),
        ("huge", ("huge",)),
        ("removed", ("small", "large", "huge")),
    ],
)
def test_a_resumed_trial_does_not_try_smaller_classes(reached: str | None, tried: tuple[str, ...]) -> None:
    space, storage = build_small_space("classes"), InMemoryStorage()
    ledger = Ledger.create(storage, "classes", space.file.objective, space.file.algorithm, {})
    assert suggest(ledger, space) == ("small", "large", "huge")
    if reached is not None:
        ledger.set_resource_class(0, reached)
    ledger.interrupt("power cut")
    resumed = open_ledger(storage, space)
    assert resumed.record(0).resource_class == reached
    assert suggest(resumed, space) == tried


def open_ledger(storage: BaseStorage, space: SearchSpace) -> Ledger:
    return Ledger.open(storage, "classes", space.file.algorithm)


def suggest(ledger: Ledger, space: SearchSpace) -> tuple[str, ...]:
    """Return the classes that the next trial tries."""
    searcher = LedgerSearcher(ledger, space, 1, RunningTrials(), list_classes=lambda config: ("small", "large", "huge"))
    content = searcher.suggest("id")
    assert isinstance(content, dict)
    return TrialSpec.from_tune_config(content).classes
