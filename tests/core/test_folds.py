"""Folds: the division of train and dev documents, and a training on a fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from clinie_core.config import Fold, TrialConfig
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.folds import select_fold
from clinie_core.data.corpora.loading import CorpusSource, load_corpus
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.errors import InputError
from clinie_core.training.train import train

FOLDS = 5
STABLE = ("strict_f1", "train_loss", "optimizer_steps")
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus({split: tuple(documents) for split, documents in generate_splits(30, seed=5).items()})


def ids(corpus: Corpus, split: str) -> set[str]:
    return {document.id for document in corpus[split]}


def test_each_document_of_train_and_dev_is_in_the_dev_split_of_one_fold(corpus: Corpus) -> None:
    folds = [select_fold(corpus, Fold(index=index, number=FOLDS)) for index in range(FOLDS)]
    pool = ids(corpus, "train") | ids(corpus, "dev")
    assert Counter(id_ for fold in folds for id_ in ids(fold, "dev")) == Counter(pool)
    for fold in folds:
        assert ids(fold, "train") == pool - ids(fold, "dev")
        assert fold["test"] == corpus["test"]
    assert folds[0].concept_types("dev") == corpus.concept_types(), "folds are stratified by type"


def test_folds_depend_only_on_the_pooled_documents_and_the_seed(corpus: Corpus) -> None:
    second = Fold(index=1, number=FOLDS)
    first = select_fold(corpus, Fold(number=FOLDS))
    assert select_fold(first, second).splits == select_fold(corpus, second).splits
    assert select_fold(corpus, Fold(index=1, number=FOLDS, seed=14)).splits != select_fold(corpus, second).splits


def test_the_documents_of_a_patient_are_in_one_fold(corpus: Corpus) -> None:
    documents = [document for split in ("train", "dev") for document in corpus[split]]
    named = [replace(d, metadata={"patient": str(i // 3)}) for i, d in enumerate(documents)]
    grouped = Corpus({"train": tuple(named[2:]), "dev": tuple(named[:2])})
    for index in range(3):
        fold = select_fold(grouped, Fold(index=index, number=3, group="metadata:patient"))
        patients = [{d.metadata["patient"] for d in fold[split]} for split in ("train", "dev")]
        assert patients[0].isdisjoint(patients[1])


def test_more_folds_than_documents_or_patients_are_a_fault(corpus: Corpus) -> None:
    few = Corpus({"train": corpus["train"][:2], "dev": corpus["dev"][:1]})
    with pytest.raises(InputError, match=r"corpus.folds: 5 folds of 3 documents in train and dev.*at most 3"):
        select_fold(few, Fold(number=5))
    same = Corpus({"train": tuple(replace(d, metadata={"patient": "1"}) for d in corpus["train"][:4])})
    with pytest.raises(InputError, match="2 folds of 1 patients"):
        select_fold(same, Fold(number=2, group="metadata:patient"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"folds": 1}, "greater than or equal to 2"), ({"group": "^(.)"}, "group needs folds")],
)
def test_invalid_folds_of_a_source_are_faults(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorpusSource.model_validate({"path": "notes", **changes})


def test_the_first_fold_of_a_source_is_its_dev_split(corpus: Corpus, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        Brat().write(corpus[split], tmp_path / split)
    whole = load_corpus(CorpusSource(path=str(tmp_path), format="brat"))
    source = CorpusSource(path=str(tmp_path), format="brat", folds=FOLDS)
    assert source.first_fold is not None
    first = load_corpus(source, ("train", "dev"))
    assert ids(first, "dev") == ids(select_fold(whole, source.first_fold), "dev")
    only_dev = load_corpus(source, ("dev",))
    assert (ids(only_dev, "dev"), ids(only_dev, "train")) == (ids(first, "dev"), set())
    shares = CorpusSource.model_validate({"path": str(tmp_path), "folds": 3, "shares": {"seed": 4, "group": "^(.)"}})
    assert shares.first_fold == Fold(number=3, seed=4, group="^(.)")


def test_folds_need_no_dev_split(corpus: Corpus, tmp_path: Path) -> None:
    Brat().write(corpus["train"], tmp_path / "train")
    found = load_corpus(CorpusSource(path=str(tmp_path), format="brat", folds=FOLDS), ("train", "dev"))
    assert len(found["dev"]) + len(found["train"]) == len(corpus["train"])
    assert found["dev"]


@pytest.mark.integration
def test_a_training_on_a_fold_equals_one_on_its_splits(make_config: MakeConfig, corpus: Corpus) -> None:
    second = Fold(index=1, number=FOLDS)

    def run(config: TrialConfig, documents: Corpus) -> dict[str, float]:
        return train(config, documents).best_metrics

    own = run(make_config(fold=second), corpus)
    divided = run(make_config(), select_fold(corpus, second))
    first = run(make_config(), select_fold(corpus, Fold(number=FOLDS)))
    assert [own[name] for name in STABLE] == [divided[name] for name in STABLE]
    assert own["train_loss"] != first["train_loss"]
