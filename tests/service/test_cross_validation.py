"""Cross-validation through a real search and a promotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import search
from clinie_core.errors import InputError
from search.storage.home import Home
from search.tracking.connection import connect

WriteSpace = Callable[[Mapping[str, Any]], Path]
OVERRIDES = {
    "budget.trials": 2,
    "budget.epochs": 1,
    "algorithm.scheduler": "none",
    "space.finetuning": "full",
    "corpus.folds": 3,
    "finalists.trials": 1,
}


def test_the_finalist_is_trained_on_all_folds_and_promoted_from_the_first(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path
) -> None:
    home, policy = tmp_path / "home", tmp_path / "policy.yaml"
    study = search.run(write_space(space_content), overrides=OVERRIDES, home=home)
    trials = study.trials
    assert list(trials["state"]) == ["complete"] * 4
    (best, *_) = study.ranking
    scores = list(trials["strict_f1"])
    assert best.scores == (scores[best.record.number], scores[2], scores[3])
    assert best.unit == "folds"

    policy.write_text("version: 1\n")
    promotion = study.promote("folded", policy=policy)
    assert promotion.candidate.trial == best.record.number
    assert promotion.version is not None
    card = connect(Home.open(home)).get_model_version("folded", promotion.version).description
    assert "In cross-validation: mean dev strict_f1" in card
    assert "over 3 folds" in card
    assert "The weights are those of the first fold" in card
    with pytest.raises(InputError, match=r"trial 2: the run of trial \d on fold 2 of 3"):
        study.promote("folded", trial=2)
    with pytest.raises(InputError, match=r"trial 3 is the run of trial \d on fold 3 of 3"):
        study.repeat_trial(3)
