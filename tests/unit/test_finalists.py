"""Finalists: further seeds of the best configurations, and trials that are answered from the ledger."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from search.analysis.findings import analyze
from search.config.search_space import SearchSpace
from search.config.space_file import Finalists, SpaceFile
from search.config.stopping import StoppingSettings
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.ranking import RankedTrial, rank_trials
from search.ledger.records import TrialRecord
from search.promotion.gate import SeedScores
from search.report.sections import build_sections
from search.report.terminal import print_trials
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult
from search.trials.spec import TrialSpec
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.schedulers import make_scheduler
from search.tune.searcher import LedgerSearcher

FINISHED = "FINISHED"
SCORES = (0.50, 0.90, 0.70, 0.80)
CONTENT: dict[str, Any] = {
    "version": 1,
    "study": "finals",
    "corpus": {"path": "corpus"},
    "finalists": {"trials": 2, "seeds": 3},
    "algorithm": {"sampler": "random", "points_to_evaluate": [{"batch_size": size} for size in (1, 2, 3, 4, 5, 6)]},
    "backbones": {"tiny": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}}},
    "space": {
        "backbone": "tiny",
        "formulation": {"token_classification": {"head": "linear"}},
        "finetuning": {"full": {"learning_rate": 1.0e-4}},
        "batch_size": {"int": [1, 6]},
    },
}


@dataclass
class StubTrial:
    """The part of a Tune trial that the recorder reads."""

    config: dict[str, Any]
    last_result: dict[str, Any] | None = None
    metric_analysis: dict[str, Any] = field(default_factory=dict)
    metric_n_steps: dict[str, Any] = field(default_factory=dict)
    trial_id: str = "trial"


class EndLog(TrialListener):
    """Lists the trials that end."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, FinalState, str | None]] = []

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        self.ends.append((number, state, reason))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space(SpaceFile.model_validate(CONTENT), "space.yaml")


def create_study(space: SearchSpace) -> BaseStorage:
    file, storage = space.file, InMemoryStorage()
    Ledger.create(storage, file.study, file.objective, file.algorithm, {})
    return storage


@pytest.fixture
def storage(space: SearchSpace) -> BaseStorage:
    return create_study(space)


class Search:
    """A searcher and a recorder on one ledger, called as Ray Tune calls them."""

    def __init__(self, storage: BaseStorage, space: SearchSpace, trials: int) -> None:
        self.ledger = Ledger.open(storage, space.file.study, space.file.algorithm)
        self.running, self.log = RunningTrials(), EndLog()
        self.recorder = StudyRecorder(self.ledger, self.running, [self.log], lambda trial: None)
        self.searcher = LedgerSearcher(self.ledger, space, trials, self.running, answer=self.recorder.answer)

    def start(self) -> StubTrial | None:
        suggested = self.searcher.suggest("id")
        if not isinstance(suggested, dict):
            return None
        trial = StubTrial(suggested)
        self.recorder.on_trial_start(0, [], trial)
        return trial

    def finish(self, trial: StubTrial, score: float) -> None:
        trial.last_result = EpochResult(1, {"strict_f1": score}, finished=True).to_tune_result()
        self.recorder.on_trial_result(0, [], trial, trial.last_result)
        self.recorder.on_trial_complete(0, [], trial)

    def run(self, *scores: float) -> list[TrialRecord]:
        """Run as many trials one by one as there are scores, and return their records."""
        found = []
        for score in scores:
            trial = self.start()
            assert trial is not None
            self.finish(trial, score)
            found.append(self.ledger.record(TrialSpec.from_tune_config(trial.config).number))
        return found


def test_the_best_configurations_run_again_with_other_seeds(space: SearchSpace, storage: BaseStorage) -> None:
    search = Search(storage, space, len(SCORES))
    first = search.run(*SCORES)
    assert search.ledger.best() == first[1]
    runs = search.run(0.60, 0.82, 0.60, 0.78)
    assert [run.repeats for run in runs] == [1, 3, 1, 3]
    assert search.searcher.suggest("id") == FINISHED
    for run in runs:
        assert run.repeats is not None
        original = first[run.repeats].config
        assert run.config is not None
        assert original is not None
        assert run.config.model_copy(update={"seed": original.seed}) == original
    seeds = [[r.config.seed for r in [first[n], *runs] if r.config and n in (r.number, r.repeats)] for n in (1, 3)]
    assert seeds[0] == seeds[1], "finalists have the same seeds, so that their difference has less noise"
    assert len(set(seeds[0])) == 3
    best = search.ledger.rank()[0]
    assert best.record == first[3], "trial 1 was better with one seed only"
    assert best.scores == (0.80, 0.82, 0.78)
    assert str(best) == "0.8000 ± 0.0200 (3 seeds)"


def test_a_finalist_waits_for_all_other_trials(space: SearchSpace, storage: BaseStorage) -> None:
    search = Search(storage, space, 2)
    first, second = search.start(), search.start()
    assert first is not None
    assert second is not None
    search.finish(first, 0.5)
    assert search.searcher.suggest("id") is None
    search.finish(second, 0.6)
    assert [run.repeats for run in search.run(0.5, 0.5)] == [1, 0]


def test_an_interrupted_final_is_resumed_and_no_run_is_repeated(space: SearchSpace, storage: BaseStorage) -> None:
    first = Search(storage, space, len(SCORES))
    first.run(*SCORES, 0.6)
    interrupted = first.start()
    assert interrupted is not None
    first.ledger.interrupt("power cut")

    resumed = Search(storage, space, 0)
    assert resumed.ledger.count_finals(space.file.finalists) == 3
    again = resumed.start()
    assert again is not None
    assert again.config == interrupted.config
    assert TrialSpec.from_tune_config(again.config).is_repeat
    resumed.finish(again, 0.82)
    assert [run.repeats for run in resumed.run(0.6, 0.78)] == [1, 3]
    assert resumed.searcher.suggest("id") == FINISHED
    assert Search(storage, space, 0).searcher.suggest("id") == FINISHED


def test_a_search_that_ended_before_its_finals_runs_them_later(space: SearchSpace, storage: BaseStorage) -> None:
    Search(storage, space, len(SCORES)).run(*SCORES)
    later = Search(storage, space, 0)
    assert later.ledger.count_finals(space.file.finalists) == 4
    assert [run.repeats for run in later.run(0.1, 0.1)] == [1, 3]


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_scheduler_stops_no_run_of_a_finalist(name: str) -> None:
    algorithm = SpaceFile.model_validate(CONTENT).algorithm.model_copy(update={"scheduler": name, "startup_trials": 1})
    scheduler = make_scheduler(StoppingSettings(algorithm, SpaceFile.model_validate(CONTENT).objective, 9))
    spec = TrialSpec(0, "{}", "tiny", memory_key="tiny", micro_batch=8, can_recompute=False)

    def report(number: int, score: float, *, is_repeat: bool) -> str:
        config = replace(spec, number=number, is_repeat=is_repeat).to_tune_config()
        result = EpochResult(3, {"strict_f1": score}).to_tune_result()
        return str(scheduler.on_trial_result(None, StubTrial(config, trial_id=str(number)), result))

    for number in range(4):
        report(number, 0.5, is_repeat=False)
    assert report(5, 0.1, is_repeat=True) == TrialScheduler.CONTINUE
    assert report(6, 0.1, is_repeat=False) == TrialScheduler.STOP


def create_single(trials: int) -> Search:
    """Create a search of a space with one configuration."""
    changes = {"space": CONTENT["space"] | {"batch_size": 4}, "algorithm": {"sampler": "random"}, "finalists": None}
    space, storage = build_space(SpaceFile.model_validate(CONTENT | changes), "s.yaml"), InMemoryStorage()
    Ledger.create(storage, space.file.study, space.file.objective, space.file.algorithm, {})
    return Search(storage, space, trials)


def test_an_identical_configuration_is_answered_from_the_ledger() -> None:
    search = create_single(3)
    trained = search.run(0.7)
    assert search.searcher.suggest("id") == FINISHED
    _, second, third = search.ledger.records()
    for record in (second, third):
        assert (record.state, record.same_as, record.epochs) == ("complete", 0, trained[0].epochs)
    assert search.log.ends[1:] == [(1, "complete", "identical to trial 0"), (2, "complete", "identical to trial 0")]
    assert search.ledger.best() == trained[0]


def test_a_failed_configuration_is_trained_again() -> None:
    search = create_single(2)
    search.start()
    search.ledger.end(0, "failed", "ValueError")
    search.running.remove(0)
    assert [record.number for record in search.run(0.7)] == [1]


def test_status_and_report_show_mean_and_spread(space: SearchSpace, storage: BaseStorage) -> None:
    search = Search(storage, space, len(SCORES))
    search.run(*SCORES, 0.60, 0.82, 0.60, 0.78)
    records = search.ledger.records()
    console = Console(file=StringIO(), width=150)
    print_trials(console, "finals", records, "strict_f1", maximized=True, wide=True)
    rows = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    first = next(row for row in rows if "complete" in row)
    assert first.split()[:4] == ["3", "complete", "0.8000", "±"]
    assert any("trial 1 with another seed" in row for row in rows)
    findings = analyze("finals", records, "strict_f1", maximized=True, counts={}, importances={})
    answer = build_sections(findings, shots={}, accesses=[], corpora=[])[0].answer
    assert answer.startswith(
        "Trial 3 is best with a mean dev strict_f1 of 0.8000 over 3 seeds (standard deviation 0.0200"
    )


def test_the_ranking_prefers_more_seeds_and_then_the_mean() -> None:
    def make_record(number: int, score: float, repeats: int | None = None) -> TrialRecord:
        record = TrialRecord(number, "complete", None, {}, {1: {"strict_f1": score}}, repeats=repeats)
        return replace(record, config=config)

    config = build_space(SpaceFile.model_validate(CONTENT), "s").suggest(_FirstChooser())
    records = [make_record(0, 0.9), make_record(1, 0.8), make_record(2, 0.7, repeats=1)]
    ranked = rank_trials(records, "strict_f1", maximized=True)
    assert [trial.record.number for trial in ranked] == [1, 0]
    assert RankedTrial(records[0], (0.9,)).spread is None


class _FirstChooser:
    """Chooser of the first or lowest value."""

    def draw_choice(self, name: str, choices: Any) -> Any:
        return choices[0]

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        return low


def test_seed_scores_describe_mean_and_spread() -> None:
    assert str(SeedScores("strict_f1", (0.80, 0.82, 0.78))) == (
        "mean dev strict_f1 0.8000 over 3 seeds, standard deviation 0.0200"
    )


def test_more_finalists_than_stored_checkpoints_are_a_fault() -> None:
    with pytest.raises(ValueError, match=r"finalists.trials is 6; allowed: at most budget.checkpoints \(5\)"):
        SpaceFile.model_validate(CONTENT | {"finalists": {"trials": 6}})
    assert Finalists() == Finalists(trials=3, seeds=3)
