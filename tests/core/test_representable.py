"""Counts of concepts that a formulation cannot express, by type and reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, TrialConfig
from clinie_core.data.document import Concept, Document, Span
from clinie_core.data.schema import Schema
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.input_context import build_input_context
from clinie_core.formulations.representable import RepresentableCounts, count_representable

UNITS = (Span(0, 5), Span(6, 10), Span(10, 11), Span(12, 17))  # chest pain, fever


def count(*concepts: tuple[str, list[tuple[int, int]]], flat: bool = True) -> RepresentableCounts:
    given = tuple(
        Concept(f"T{i}", type_, tuple(Span(*span) for span in spans)) for i, (type_, spans) in enumerate(concepts)
    )
    return count_representable([Document("n", "x" * 20, given)], [UNITS], flat=flat)


@pytest.mark.parametrize(
    ("spans", "lost"),
    [
        ([(0, 10)], {}),
        ([(12, 17)], {}),
        ([(0, 11)], {}),  # with the comma
        ([(0, 9)], {"unit boundary": 1}),
        ([(1, 5)], {"unit boundary": 1}),
        ([(0, 6)], {"unit boundary": 1}),  # with the blank
        ([(5, 6)], {"unit boundary": 1}),  # only the blank
        ([(18, 20)], {"unit boundary": 1}),  # after the last unit
        ([(0, 5), (12, 17)], {"discontinuous": 1}),
    ],
)
def test_reason_of_a_single_concept(spans: list[tuple[int, int]], lost: dict[str, int]) -> None:
    for flat in (True, False):
        counts = count(("Sign", spans), flat=flat)
        assert (counts.share, counts.by_reason()) == (0.0 if lost else 1.0, lost)


def test_flat_labels_keep_the_longest_of_overlapping_concepts() -> None:
    nested = (("Sign", [(0, 10)]), ("Site", [(0, 5)]), ("Sign", [(12, 17)]))
    flat, spans = count(*nested), count(*nested, flat=False)
    assert (flat.by_type(), flat.by_reason()) == ({"Sign": 1.0, "Site": 0.0}, {"overlap": 1})
    assert (spans.by_type(), spans.by_reason()) == ({"Sign": 1.0, "Site": 1.0}, {})


def test_duplicates_are_one_concept_and_no_concepts_are_all_representable() -> None:
    twice = count(("Sign", [(0, 10)]), ("Sign", [(0, 10)]))
    assert (twice.concepts, twice.share) == ({"Sign": 1}, 1.0)
    assert count().as_json() == {"concepts": 0, "representable": 1.0, "by_type": {}, "lost": {}}


@pytest.mark.parametrize(("unit", "share", "lost"), [("word", 1.0, {}), ("token", 0.0, {"unit boundary": 2})])
def test_units_of_a_tokenizer_that_splits_at_spaces_only(
    make_config: Callable[..., TrialConfig], unit: str, share: float, lost: dict[str, Any]
) -> None:
    pieces = ["<pad>", "▁No", "▁chest", "▁pain,", "▁fever."]
    model = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<pad>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>")
    concepts = (Concept("T1", "P", (Span(3, 13),)), Concept("T2", "P", (Span(15, 20),)))
    documents = [Document("n", "No chest pain, fever.", concepts)]
    context = build_input_context(make_config(), tokenizer, Schema.from_documents(documents))
    formulation = FORMULATIONS.load("token_classification").model_validate({"unit": unit})
    counts = formulation.count_representable(documents, formulation.encode(documents, context, targets=False), context)
    assert counts is not None
    assert counts.as_json() == {"concepts": 2, "representable": share, "by_type": {"P": share}, "lost": lost}


@pytest.mark.parametrize(
    ("template", "answer_tokens", "lost"),
    [
        ("lines", None, {"ambiguous occurrence": 1}),
        ("tags", None, {"overlap": 1}),
        ("lines", 8, {"ambiguous occurrence": 1, "answer length": 2}),
    ],
)
def test_concepts_that_a_gold_answer_does_not_recover_are_counted_by_reason(
    make_config: Callable[..., TrialConfig], template: str, answer_tokens: int | None, lost: dict[str, int]
) -> None:
    text = "No pain. Has pain, chest pain."
    spans = [(13, 17), (13, 24), (19, 29)]
    concepts = tuple(Concept(f"T{i}", "P", (Span(*span),)) for i, span in enumerate(spans))
    documents = [Document("n", text, concepts)]
    tokenizer = load_tokenizer(BackboneSource(name="tiny", scratch={"model_type": "llama"}))
    context = build_input_context(make_config(window_tokens=300), tokenizer, Schema.from_documents(documents))
    context = replace(context, answer_tokens=answer_tokens)
    formulation = FORMULATIONS.load("generation").model_validate({"template": template})
    counts = formulation.count_representable(documents, formulation.encode(documents, context, targets=False), context)
    assert counts is not None
    assert counts.by_reason() == lost
