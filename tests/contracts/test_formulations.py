"""Contract of formulations, tested for every row of the registry and each of its tasks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, Task, TrialConfig
from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import Example
from clinie_core.errors import ErrorList
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.formulation import Formulation, Prediction
from clinie_core.formulations.input_context import build_input_context
from clinie_core.templates import TEMPLATES
from search.config.domains import parse_domain

ROWS = [(name, task) for name in FORMULATIONS for task in sorted(FORMULATIONS.load(name).tasks)]


def make_certain_output(example: Example, formulation: Formulation[object], schema: Schema) -> np.ndarray[Any, Any]:
    """Return the output of a head that predicts the gold annotations with certainty."""
    if formulation.generates:
        return np.array(example.targets[:-1])
    if not example.targets:
        return np.array([(*span, 9.0) for span in example.spans]).reshape(-1, 4)
    width = 1 + max(2 * len(schema.concept_types), len(schema.relation_types))
    rows = np.eye(width, dtype=np.float32)[list(example.targets)] * 50
    if len(example.targets) < len(example.positions):  # one label for the whole row
        return rows[0]  # type: ignore[no-any-return]
    return rows[:, : 1 + 2 * len(schema.concept_types)]


def list_annotations(document: Document, task: Task) -> set[object]:
    place = {c.id: (c.type, c.start, c.end) for c in document.concepts}
    concepts: set[object] = set(place.values()) if task != "relations" else set()
    relations = {(r.type, place[r.head], place[r.tail]) for r in document.relations} if task != "concepts" else set()
    return concepts | relations


def draw_concepts(document: Document, draw: random.Random) -> tuple[Concept, ...]:
    """Add concepts that overlap, end within a word, are discontinuous, or are longer than a window."""
    text, spans = document.text, [c.spans for c in document.concepts]
    for _ in range(12):
        start = draw.randrange(len(text) - 8)
        end = min(len(text), start + draw.choice((3, 8, 300)))
        spans.append(
            (Span(start, start + 2), Span(start + 4, end))
            if draw.random() < 0.2 and end > start + 4
            else (Span(start, end),)
        )
        spans.append(draw.choice(spans))
    return tuple(Concept(f"T{i}", draw.choice("AB"), own) for i, own in enumerate(spans))


@pytest.mark.parametrize(("name", "task"), ROWS)
class TestFormulation:
    def test_gold_targets_are_decoded_to_the_gold_annotations(
        self, make_config: Callable[..., TrialConfig], corpus: Corpus, name: str, task: Task
    ) -> None:
        formulation = FORMULATIONS.load(name)()
        schema = Schema.from_documents(corpus["train"])
        kind = "llama" if formulation.generates else "bert"
        tokenizer = load_tokenizer(BackboneSource(name="tiny", scratch={"model_type": kind}))
        config = make_config(task=task, window_tokens=1200 if formulation.generates else 360)
        context = build_input_context(config, tokenizer, schema)
        encoded = formulation.encode(corpus["train"], context, targets=True)
        reachable = 0
        for document, item in zip(corpus["train"], encoded, strict=True):
            outputs = [make_certain_output(example, formulation, schema) for example in item.examples]
            given = document.concepts if task == "relations" else ()
            bare = Document(document.id, document.text, given)
            found = formulation.decode(Prediction(bare, item, outputs, context))
            expected = list_annotations(document, task)
            # A formulation may miss relations, which the diagnostics count, but it must not add any.
            assert list_annotations(found, task) <= expected
            reachable += len(list_annotations(found, task))
        total = sum(len(list_annotations(document, task)) for document in corpus["train"])
        assert reachable >= 0.95 * total
        if task == "concepts":
            assert reachable == total

    def test_representable_concepts_are_exactly_those_recovered_from_gold_targets(
        self, make_config: Callable[..., TrialConfig], corpus: Corpus, name: str, task: Task
    ) -> None:
        draw = random.Random(5)
        documents = [replace(d, concepts=draw_concepts(d, draw), relations=()) for d in corpus["train"]]
        schema = Schema.from_documents(documents)
        generates = FORMULATIONS.load(name).generates
        kind, window = ("llama", 700) if generates else ("bert", 100)
        tokenizer = load_tokenizer(BackboneSource(name="tiny", scratch={"model_type": kind}))
        context = build_input_context(make_config(task=task, window_tokens=window), tokenizer, schema)
        changed: list[dict[str, object]] = [{}, {"overlaps": False}, {"unit": "token"}]
        changed += [{"template": template} for template in TEMPLATES if task in TEMPLATES.load(template).tasks]
        for changes in changed:
            if not changes.keys() <= FORMULATIONS.load(name).model_fields.keys():
                continue
            formulation = FORMULATIONS.load(name).model_validate(changes)
            encoded = formulation.encode(documents, context, targets=True)
            counts = formulation.count_representable(documents, encoded, context)
            if task == "relations":
                assert counts is None
                continue
            assert counts is not None
            recovered = 0
            for document, item in zip(documents, encoded, strict=True):
                outputs = [make_certain_output(example, formulation, schema) for example in item.examples]
                bare = Document(document.id, document.text)
                found = formulation.decode(Prediction(bare, item, outputs, context))
                recovered += len(
                    {(c.type, c.spans) for c in found.concepts} & {(c.type, c.spans) for c in document.concepts}
                )
            if "overlaps" in changes:  # a tie between certain answers is decided by their order, not by their length
                assert counts.by_reason()["overlap"] > 0
                continue
            total = counts.concepts.total()
            assert total == sum(len({(c.type, c.spans) for c in d.concepts}) for d in documents)
            assert round(counts.share * total) == recovered
            assert 0 < recovered < total
            assert sum(counts.by_reason().values()) == total - recovered
            assert formulation.compute_diagnostics(documents, encoded, context)["representable"] == counts.share

    def test_inputs_stay_within_the_window(
        self, make_config: Callable[..., TrialConfig], corpus: Corpus, name: str, task: Task
    ) -> None:
        formulation = FORMULATIONS.load(name)()
        kind = "llama" if formulation.generates else "bert"
        tokenizer = load_tokenizer(BackboneSource(name="tiny", scratch={"model_type": kind}))
        window = 700 if formulation.generates else 160
        context = build_input_context(
            make_config(task=task, window_tokens=window), tokenizer, Schema.from_documents(corpus["train"])
        )
        documents = [replace(d, text=d.text.replace(". ", ".  \n")) for d in corpus["train"][:4]]
        encoded = formulation.encode(documents, context, targets=False)
        examples = [example for item in encoded for example in item.examples]
        assert examples
        extra = (
            400 if task == "relations" and formulation.generates else 0
        )  # for the names of the concepts in the question
        assert all(len(example.input_ids) <= window + extra for example in examples)

    def test_its_default_ranges_are_valid(self, name: str, task: Task) -> None:
        row = FORMULATIONS.load(name)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        for key, values in corners.items():
            for value in values:
                row.model_validate({key: value})

    def test_its_docstring_describes_exactly_its_own_parameters(self, name: str, task: Task) -> None:
        row = FORMULATIONS.load(name)
        arguments = (row.__doc__ or "").partition("Args:")[2]
        parameters = {field for field in row.__annotations__ if field in row.model_fields}
        assert set(re.findall(r"^ +(\w+): ", arguments, re.MULTILINE)) == parameters
