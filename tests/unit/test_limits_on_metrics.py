"""Limits on metrics: the best trial, samplers, reports and promotions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from clinie_core.errors import InputError
from search.analysis.findings import analyze
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.proposals import PastTrial, propose
from search.ledger.storage import open_storage
from search.promotion.study_promotion import promote_study
from search.report.sections import build_sections
from search.storage.home import Home

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONTENT: dict[str, Any] = {
    "version": 1,
    "study": "limited",
    "corpus": {"path": "corpus"},
    "limits": {"documents_per_second": 20},
    "backbones": {"tiny": {"scratch": {"model_type": "bert", **SIZE}}},
    "space": {
        "backbone": "tiny",
        "formulation": "token_classification",
        "finetuning": {"full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}}},
        "batch_size": {"choose": [4, 8]},
    },
}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space(SpaceFile.model_validate(CONTENT), "limited.yaml")


def create(space: SearchSpace, storage: BaseStorage) -> Ledger:
    file = space.file
    attributes = {"space": file.model_dump(mode="json"), "corpus_digest": "", "parent_run": ""}
    return Ledger.create(storage, file.study, file.objective, file.algorithm, attributes, limits=file.metric_limits)


def run_trial(ledger: Ledger, space: SearchSpace, score: float, speed: float, state: Any = "complete") -> None:
    number, _ = ledger.ask(space)
    ledger.report(number, 1, {"strict_f1": score, "documents_per_second": speed})
    ledger.end(number, state)


def test_the_best_trial_satisfies_the_limits(space: SearchSpace) -> None:
    ledger = create(space, InMemoryStorage())
    run_trial(ledger, space, 0.9, speed=5)
    assert ledger.best() is None
    run_trial(ledger, space, 0.6, speed=25)
    best = ledger.best()
    assert best is not None
    assert best.number == 1


def test_samplers_see_a_violated_limit_as_a_constraint(space: SearchSpace) -> None:
    storage = InMemoryStorage()
    ledger = create(space, storage)
    run_trial(ledger, space, 0.9, speed=5)
    run_trial(ledger, space, 0.9, speed=5, state="pruned")
    run_trial(ledger, space, 0.6, speed=25)
    violations = [trial.constraints["limits.documents_per_second"] for trial in storage.get_all_trials(0)]
    assert violations == pytest.approx([0.75, 0.75, -0.25])


def test_proposals_move_around_trials_within_the_limits(space: SearchSpace) -> None:
    def make_past(batch_size: int, score: float, violation: float) -> list[PastTrial]:
        parameters = {"finetuning.full.learning_rate": 1e-4, "batch_size": batch_size}
        return [PastTrial(parameters, 4, score, "uniform", violation)] * 5

    past = [*make_past(4, 0.9, violation=0.5), *make_past(8, 0.5, violation=-0.5)]
    moves = [p for p in (propose(space, seed, past) for seed in range(100)) if p.origin == "move"]
    assert sum(p.parameters["batch_size"] == 8 for p in moves) > 0.7 * len(moves) > 20


def test_the_report_names_the_trials_that_a_limit_excludes(space: SearchSpace) -> None:
    ledger = create(space, InMemoryStorage())
    run_trial(ledger, space, 0.9, speed=5)

    def answer() -> str:
        settings: dict[str, Any] = {"maximized": True, "counts": {}, "importances": {}, "limits": ledger.limits}
        findings = analyze("limited", ledger.records(), "strict_f1", **settings)
        return build_sections(findings, shots={}, accesses=[], corpora=[])[0].answer

    assert answer() == (
        "No complete trial satisfies the limits: 1 trial beyond documents_per_second >= 20 (1 complete)."
    )
    run_trial(ledger, space, 0.6, speed=25)
    assert answer().startswith("Trial 1 is best with dev strict_f1 0.6000")
    assert "exclude: 1 trial beyond documents_per_second >= 20." in answer()


def test_a_trial_beyond_a_limit_is_not_promoted(space: SearchSpace, tmp_path: Path) -> None:
    home = Home(tmp_path)
    run_trial(create(space, open_storage(home)), space, 0.9, speed=5)
    with pytest.raises(InputError) as refused:
        promote_study(home, "limited", name="model", trial=0)
    assert str(refused.value) == (
        "trial 0: beyond a limit of its study: documents_per_second is 5 (limit: documents_per_second >= 20);"
        " a trial within the limits"
    )
    with pytest.raises(InputError, match="no finished trial of study 'limited' satisfies its limits"):
        promote_study(home, "limited", name="model")
