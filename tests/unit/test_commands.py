"""Commands in the ledger: ids, decisions, and the checks before and by the driver."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.storages import InMemoryStorage

from clinie_core.errors import InputError
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.control.changes import parse_changes
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import Command
from search.ledger.ledger import Ledger
from search.ledger.trial_queue import TrialQueue
from search.study.control import StudyControl


@pytest.fixture
def space() -> SearchSpace:
    scratch = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}
    tiny = {"scratch": scratch, "allow_frozen": True}
    content = {
        "version": 1,
        "study": "commands",
        "corpus": {"path": "corpus"},
        "budget": {"trials": 4, "epochs": 2},
        "algorithm": {"sampler": "random"},
        "backbones": {"tiny": tiny},
        "space": {
            "backbone": "tiny",
            "formulation": {"token_classification": {"head": "linear"}},
            "finetuning": {
                "choose": {
                    "full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}},
                    "ia3": {"learning_rate": {"log": [1.0e-4, 1.0e-2]}},
                }
            },
            "batch_size": {"choose": [8, 16]},
            "window_tokens": 96,
        },
    }
    return build_space(SpaceFile.model_validate(content), "space.yaml")


@pytest.fixture
def ledger(space: SearchSpace) -> Ledger:
    file = space.file
    attributes = {"space": file.model_dump(mode="json")}
    return Ledger.create(InMemoryStorage(), "commands", file.objective, file.algorithm, attributes)


def draw_trial(ledger: Ledger, space: SearchSpace, method: str) -> int:
    """Draw trials until one has a fine-tuning method; return its number."""
    while True:
        number, config = ledger.ask(space)
        if config.finetuning.name == method:
            return number


def test_a_command_with_a_known_id_has_no_effect(ledger: Ledger, space: SearchSpace) -> None:
    processor, log = CommandProcessor(ledger, space), CommandLog(ledger)
    command = Command("a", "add-budget", 1, trials=2)
    for at in (1, 2):
        log.send(Command("a", "add-budget", at, trials=2))
        processor.process()
    assert processor.trials == 6
    assert [entry.command for entry in log.read()] == [command]
    with pytest.raises(InputError, match="a is the id of another command: add-budget of 2 trials"):
        log.send(Command("a", "add-budget", 3, trials=1))


def test_decisions_are_restored_and_applied_once(ledger: Ledger, space: SearchSpace) -> None:
    number = draw_trial(ledger, space, "full")
    log = CommandLog(ledger)
    log.send(
        Command(
            "c", "clone", 1, number, {"batch_size": 8 if ledger.record(number).parameters["batch_size"] == 16 else 16}
        )
    )
    log.send(Command("p", "pause", 2, number))
    CommandProcessor(ledger, space).process()
    again = CommandProcessor(ledger, space)
    assert again.process() == []
    assert again.trials == 5
    assert again.state.holds(number)
    assert list(ledger.queue.find_clones()) == ["c"]
    again.end_pauses()
    assert not CommandProcessor(ledger, space).state.has_pause


def test_a_clone_that_was_accepted_before_a_crash_is_created_by_the_next_driver(
    ledger: Ledger, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = draw_trial(ledger, space, "full")
    CommandLog(ledger).send(Command("c", "clone", 1, number, {"finetuning": "ia3"}))

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "enqueue_clone", crash)
        with pytest.raises(KeyboardInterrupt):
            CommandProcessor(ledger, space).process()
    assert ledger.queue.find_clones() == {}
    CommandProcessor(ledger, space)
    clone, config = ledger.ask(space)
    assert ledger.queue.find_clones() == {"c": clone}
    assert config.finetuning.name == "ia3"  # its learning rate is drawn: that of full fine-tuning is dropped
    assert config.batch_size == ledger.record(number).parameters["batch_size"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 8}, "rank: not a dimension of the space; allowed: batch_size, "),
        ({"batch_size": 9}, "batch_size: found 9; choose 8, 16"),
        ({"finetuning.full.learning_rate": 1.0}, "finetuning.full.learning_rate: found 1.0; log 1e-05 to 0.001"),
        ({"window_tokens": 64}, "window_tokens: the space fixes it to 96"),
        ({"finetuning": "lora"}, "finetuning: found 'lora'; choose full, ia3"),
        ({"finetuning.ia3.learning_rate": 1e-3}, "no configuration with the other values of trial"),
        ({}, "clone: no change"),
    ],
)
def test_a_clone_that_the_space_does_not_have_is_rejected_with_one_line(
    ledger: Ledger, space: SearchSpace, changes: dict[str, object], message: str
) -> None:
    number, processor = draw_trial(ledger, space, "full"), CommandProcessor(ledger, space)
    CommandLog(ledger).send(Command("c", "clone", 1, number, changes))
    assert processor.process() == []
    (entry,) = CommandLog(ledger).read()
    assert entry.decision is not None
    assert message in str(entry.decision.problem)
    assert "\n" not in str(entry.decision)
    assert processor.trials == 4


def test_a_command_that_is_known_to_be_wrong_is_not_written(ledger: Ledger, space: SearchSpace) -> None:
    number = draw_trial(ledger, space, "full")
    ledger.end(number, "failed", "reason")
    running = StudyControl(ledger, lambda: True)
    idle = StudyControl(ledger, lambda: False)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: running.stop(number), f"trial {number} has ended \\(failed: reason\\); a running trial"),
        (lambda: running.pause(number), f"trial {number} has ended"),
        (lambda: running.resume(99), "there is no trial 99"),
        (lambda: running.add_budget(), "nothing to add"),
        (lambda: running.add_budget(hours=1), "the search has no time limit"),
        (lambda: running.stop(0, id_="a b"), "--id: found 'a b'"),
        (lambda: idle.stop(0), "no search of 'commands' is running; a running search; start it with: clinie resume"),
        (lambda: idle.add_budget(trials=3), "clinie extend commands --trials 3"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert running.commands == []


def test_changes_are_parsed_as_yaml() -> None:
    assert parse_changes(["space.batch_size=16", "rate=1e-4", "finetuning=lora", "sharded=true"]) == {
        "batch_size": 16,
        "rate": 1e-4,
        "finetuning": "lora",
        "sharded": True,
    }
    for wrong in ("batch_size", "=3", "batch_size="):
        with pytest.raises(InputError, match="not a change"):
            parse_changes([wrong])
    with pytest.raises(InputError, match="batch_size is given twice"):
        parse_changes(["batch_size=8", "space.batch_size=16"])


def test_added_hours_remain_for_the_next_driver(space: SearchSpace) -> None:
    limited = space.with_budget(space.file.budget.model_copy(update={"hours": 2.0}))
    ledger = Ledger.create(InMemoryStorage(), "hours", space.file.objective, space.file.algorithm, {})
    processor = CommandProcessor(ledger, limited)
    for number, hours in enumerate((0.5, 1.0)):
        CommandLog(ledger).send(Command(f"id{number}", "add-budget", number, hours=hours))
    assert len(processor.process()) == 2
    assert processor.budget.hours == CommandProcessor(ledger, limited).budget.hours == 3.5
    assert CommandProcessor(ledger, space).budget.hours is None
