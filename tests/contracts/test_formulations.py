"""What every formulation keeps; a new row of the table is tested without a new test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, Task, TrialConfig
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import Example
from clinie_core.errors import ErrorList
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.formulation import Formulation, Prediction
from clinie_core.modeling.model_cache import build_input_context
from search.config.domains import parse_domain

ROWS = [(name, task) for name in FORMULATIONS for task in sorted(FORMULATIONS.load(name).tasks)]


def certain(example: Example, formulation: Formulation[object], schema: Schema) -> np.ndarray[Any, Any]:
    """What a head that knows the gold gives for an example."""
    if formulation.generates:
        return np.array(example.targets[:-1])
    if not example.targets:
        return np.array([(*span, 9.0) for span in example.spans]).reshape(-1, 4)
    width = 1 + max(2 * len(schema.concept_types), len(schema.relation_types))
    rows = np.eye(width, dtype=np.float32)[list(example.targets)] * 50
    if len(example.targets) < len(example.positions):  # one label for the whole row
        return rows[0]  # type: ignore[no-any-return]
    return rows[:, : 1 + 2 * len(schema.concept_types)]


def annotated(document: Document, task: Task) -> set[object]:
    place = {c.id: (c.type, c.start, c.end) for c in document.concepts}
    concepts: set[object] = set(place.values()) if task != "relations" else set()
    relations = {(r.type, place[r.head], place[r.tail]) for r in document.relations} if task != "concepts" else set()
    return concepts | relations


@pytest.mark.parametrize(("name", "task"), ROWS)
class TestFormulation:
    def test_gold_targets_read_back_as_the_gold_annotations(
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
            outputs = [certain(example, formulation, schema) for example in item.examples]
            given = document.concepts if task == "relations" else ()
            bare = Document(document.id, document.text, given)
            found = formulation.decode(Prediction(bare, item, outputs, context))
            expected = annotated(document, task)
            # A relation may lie out of reach (and is then counted by the diagnostics), but none is invented.
            assert annotated(found, task) <= expected
            reachable += len(annotated(found, task))
        total = sum(len(annotated(document, task)) for document in corpus["train"])
        assert reachable >= 0.95 * total
        if task == "concepts":
            assert reachable == total

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
        named = 400 if task == "relations" and formulation.generates else 0  # a question names the concepts
        assert all(len(example.input_ids) <= window + named for example in examples)

    def test_its_shipped_ranges_are_legal(self, name: str, task: Task) -> None:
        row = FORMULATIONS.load(name)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        for key, values in corners.items():
            for value in values:
                row.model_validate({key: value})

    def test_its_docstring_says_what_it_is(self, name: str, task: Task) -> None:
        assert (FORMULATIONS.load(name).__doc__ or "").strip()
