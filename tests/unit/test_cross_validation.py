"""Cross-validation in a search: the best configurations run on all folds of the corpus."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from io import StringIO
from typing import Any

import pytest
from optuna.storages import BaseStorage
from rich.console import Console

from search.analysis.findings import analyze
from search.config.search_space import SearchSpace
from search.config.space_file import Finalists, SpaceFile
from search.config.validation import build_space
from search.promotion.gate import SeedScores
from search.report.sections import build_sections
from search.report.terminal import print_trials
from tests.unit.test_finalists import CONTENT, FINISHED, SCORES, Search, create_study

FOLDED: dict[str, Any] = CONTENT | {"corpus": {"path": "corpus", "folds": 3}, "finalists": {"trials": 2}}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space(SpaceFile.model_validate(FOLDED), "space.yaml")


@pytest.fixture
def storage(space: SearchSpace) -> BaseStorage:
    return create_study(space)


def test_the_best_configurations_run_on_the_other_folds(space: SearchSpace, storage: BaseStorage) -> None:
    search = Search(storage, space, len(SCORES))
    first = search.run(*SCORES)
    runs = search.run(0.60, 0.82, 0.60, 0.78)
    assert [run.repeats for run in runs] == [1, 3, 1, 3]
    assert search.searcher.suggest("id") == FINISHED
    assert [str(run.config.fold) for run in runs if run.config] == ["2 of 3", "2 of 3", "3 of 3", "3 of 3"]
    for run in runs:
        assert run.repeats is not None
        assert run.config is not None
        assert run.config.model_copy(update={"fold": None}) == first[run.repeats].config
    best = search.ledger.rank()[0]
    assert best.record == first[3], "trial 1 was better on one fold only"
    assert str(best) == "0.8000 ± 0.0200 (3 folds)"
    assert best.as_json()["fold_scores"] == [0.80, 0.82, 0.78]


def test_an_interrupted_search_continues_with_the_missing_folds(space: SearchSpace, storage: BaseStorage) -> None:
    first = Search(storage, space, len(SCORES))
    first.run(*SCORES, 0.60)
    assert first.start() is not None
    first.ledger.interrupt("the search ended before the trial")
    resumed = Search(storage, space, 0)
    assert resumed.ledger.count_finals(space.file.final_runs) == 3
    runs = resumed.run(0.82, 0.60, 0.78)
    assert [(run.repeats, str(run.config.fold)) for run in runs if run.config] == [
        (3, "2 of 3"),
        (1, "3 of 3"),
        (3, "3 of 3"),
    ]
    assert resumed.searcher.suggest("id") == FINISHED


def test_status_and_report_show_the_mean_over_the_folds(space: SearchSpace, storage: BaseStorage) -> None:
    search = Search(storage, space, len(SCORES))
    search.run(*SCORES, 0.60, 0.82, 0.60, 0.78)
    records, ranked = search.ledger.records(), search.ledger.rank()
    console = Console(file=StringIO(), width=200)
    print_trials(console, "folds", records, "strict_f1", maximized=True, wide=True)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "0.8000 ± 0.0200 (3 folds)" in shown
    assert "trial 3 on fold 2 of 3" in shown
    findings = analyze("folds", records, "strict_f1", maximized=True, counts={}, importances={})
    answer = build_sections(findings, shots={}, accesses=[], corpora=[])[0].answer
    assert "a mean dev strict_f1 of 0.8000 over 3 folds (standard deviation 0.0200" in answer
    assert str(SeedScores("strict_f1", ranked[0].scores, ranked[0].unit)) == (
        "mean dev strict_f1 0.8000 over 3 folds, standard deviation 0.0200"
    )


def test_folds_have_three_finalists_by_default_but_no_more_than_stored_checkpoints() -> None:
    file = SpaceFile.model_validate(FOLDED | {"finalists": None})
    assert file.final_runs is not None
    assert (file.final_runs.trials, file.final_runs.most_runs) == (3, 6)
    stored = SpaceFile.model_validate(SpaceFile.model_validate(FOLDED).model_dump(mode="json"))
    assert stored.final_runs == SpaceFile.model_validate(FOLDED).final_runs
    fewer = SpaceFile.model_validate(FOLDED | {"finalists": None, "budget": {"checkpoints": 1}})
    assert fewer.final_runs is not None
    assert fewer.final_runs.trials == 1
    assert SpaceFile.model_validate(CONTENT).final_runs == Finalists(trials=2, seeds=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finalists": {"seeds": 4}}, "remove finalists.seeds, or folds"),
        ({"corpus": [{"path": "a", "folds": 3}, {"path": "b"}]}, "corpus.folds divides a single corpus; found 2"),
        ({"corpus": {"path": "a", "folds": 1}}, "greater than or equal to 2"),
    ],
)
def test_blocks_that_contradict_folds_are_faults(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpaceFile.model_validate(FOLDED | changes)
