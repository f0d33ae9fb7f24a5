"""One model for several corpora, and transfer from other corpora."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.loading import CorpusSource, Shares, load_corpora, load_corpus
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Concept, Corpus
from clinie_core.data.schema import CORPUS_KEY, Schema
from clinie_core.encoding.batch_sampling import sample_mixture
from clinie_core.errors import InputError
from clinie_core.formulations.span_question import QuestionedDocument
from clinie_core.modeling.checkpoint import Checkpoint
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import train
from clinie_core.training.transfer import evaluate_few_shot, evaluate_zero_shot, join_corpora

MakeConfig = Callable[..., TrialConfig]
QUESTION = ComponentChoice(name="span_question", parameters={"wording": "name"})


def one_type(corpus: Corpus, name: str, type_: str) -> Corpus:
    """Return a corpus with annotations of one type only, and the corpus name in each document's metadata."""
    return Corpus(
        {
            split: tuple(
                replace(
                    d,
                    id=f"{name}/{d.id}",
                    concepts=tuple(Concept(c.id, c.type, c.spans) for c in d.concepts if c.type == type_),
                    relations=(),
                    attributes=(),
                    metadata={CORPUS_KEY: name},
                )
                for d in documents
            )
            for split, documents in corpus.splits.items()
        }
    )


@pytest.fixture
def corpora(corpus: Corpus) -> dict[str, Corpus]:
    first, second, *_ = sorted(corpus.count_types("train"), key=lambda t: -corpus.count_types("train")[t])
    return {"a": one_type(corpus, "a", first), "b": one_type(corpus, "b", second)}


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80), st.floats(0, 1), st.integers(1, 5))
def test_sampling_preserves_the_size_and_balances_the_corpora(groups: list[str], exponent: float, epoch: int) -> None:
    drawn = sample_mixture(groups, exponent, seed=1, epoch=epoch)
    assert drawn == sample_mixture(groups, exponent, seed=1, epoch=epoch)
    assert abs(len(drawn) - len(groups)) <= 3
    counts = Counter(groups[i] for i in drawn)
    assert set(counts) == set(groups)
    if exponent == 0:
        assert max(counts.values()) - min(counts.values()) <= 1
    if exponent == 1:
        assert sorted(drawn) == list(range(len(groups)))


def test_questions_for_a_document_cover_only_the_types_of_its_corpus(
    make_config: MakeConfig, corpora: dict[str, Corpus]
) -> None:
    both = join_corpora(corpora, without="")
    schema = Schema.from_documents(both["train"])
    assert set(schema.corpora) == {"a", "b"}
    config = make_config(formulation=QUESTION, window_tokens=160)
    encoded = ModelCache().encode(config, "concepts", both["train"], "digest", schema, targets=False)
    for document, item in zip(both["train"], encoded, strict=True):
        assert isinstance(item.state, QuestionedDocument)
        asked = {query.type for query in item.state.queries}
        assert asked == set(schema.corpora[document.metadata[CORPUS_KEY]].concept_types)


def test_a_model_of_several_corpora_reports_a_score_for_each(
    make_config: MakeConfig, corpora: dict[str, Corpus]
) -> None:
    config = make_config(formulation=QUESTION, window_tokens=160, epochs=1, sampling_exponent=0.0)
    result = train(config, join_corpora(corpora, without=""))
    assert {"a.strict_f1", "b.strict_f1"} <= set(result.best_metrics)


def test_zero_shot_and_few_shot_evaluation_of_a_held_out_corpus(
    make_config: MakeConfig, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    learning = ComponentChoice(name="full", parameters={"learning_rate": 3e-3})
    config = make_config(formulation=QUESTION, finetuning=learning, window_tokens=160, epochs=3)
    cache = ModelCache()
    zero = evaluate_zero_shot(config, corpora, "b", tmp_path, split="dev", cache=cache)
    again = evaluate_zero_shot(config, corpora, "b", tmp_path, split="dev", cache=cache)  # loads the trained model
    assert zero == again
    assert (zero.holdout, zero.shots) == ("b", 0)
    assert zero.low <= zero.metrics["strict_f1"] <= zero.high
    few = evaluate_few_shot(config, corpora["b"], "b", tmp_path, 4, epochs=2, split="dev", cache=cache)
    assert few.shots == 4
    assert Checkpoint.read(tmp_path / "shots-4-epochs-2" / "best").config.epochs == 2


def test_a_formulation_with_labels_of_one_corpus_is_rejected(
    make_config: MakeConfig, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="the labels for concepts are bound to one corpus; a formulation that"):
        evaluate_zero_shot(make_config(), corpora, "b", tmp_path, split="dev", cache=ModelCache())


def test_several_corpora_are_loaded_as_one_with_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        for split, notes in generate_splits(20, seed=number).items():
            Brat().write(notes, tmp_path / name / split)
    sources = [CorpusSource(path=str(tmp_path / name)) for name in ("first", "second")]
    both = load_corpora(sources, ("train", "dev"))
    assert {d.metadata[CORPUS_KEY] for d in both["train"]} == {"first", "second"}
    assert len({d.id for d in both["train"]}) == len(both["train"])
    with pytest.raises(InputError, match=r"missing: corpus\.path: no folder"):
        load_corpora([*sources, CorpusSource(path=str(tmp_path / "missing"))])


def test_a_corpus_without_splits_is_split_by_seed(tmp_path: Path) -> None:
    notes = [note for part in generate_splits(40, seed=1).values() for note in part]
    Brat().write(notes[:20], tmp_path / "one")
    Brat().write(notes[20:], tmp_path / "two")
    shares = Shares(train=0.5, dev=0.25, test=0.25, pool=["one", "two"])
    source = CorpusSource(path=str(tmp_path), shares=shares)
    corpus = load_corpus(source)
    assert sorted(d.id for docs in corpus.splits.values() for d in docs) == sorted(n.id for n in notes)
    assert load_corpus(source).digest() == corpus.digest()
    assert load_corpus(source, ("train",))["train"] == corpus["train"]
    other = source.model_copy(update={"shares": shares.model_copy(update={"seed": 14})})
    assert load_corpus(other).digest() != corpus.digest()
