"""Documents and corpora hide their text, have stable digests and merge types; registries and errors."""

from __future__ import annotations

import random

import pytest

from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.errors import ErrorList, InputError
from clinie_core.registry import Registry


def test_repr_hides_text_and_mentions(corpus: Corpus) -> None:
    document = corpus["train"][0]
    shown = repr(document) + repr(corpus)
    assert document.id in shown
    assert document.text[:12] not in shown


def test_digest_depends_on_content_but_not_on_order(corpus: Corpus) -> None:
    notes = list(corpus["train"])
    random.Random(0).shuffle(notes)
    shuffled = Corpus({**corpus.splits, "train": tuple(notes)})
    assert shuffled.digest() == corpus.digest()
    changed = Document(notes[0].id, notes[0].text + " ", notes[0].concepts)
    assert Corpus({**corpus.splits, "train": (changed, *notes[1:])}).digest() != corpus.digest()


def test_merging_types_keeps_other_types(corpus: Corpus) -> None:
    merged = corpus.merge_types({"Medication": ["Drug", "Dosage"]})
    assert set(merged.concept_types()) == set(corpus.concept_types()) - {"Drug", "Dosage"} | {"Medication"}
    assert corpus.merge_types({"Any": ["*"]}).concept_types() == ("Any",)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (5, 2), (-1, 4)])
def test_empty_and_negative_spans_are_rejected(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        Span(start, end)


def test_concept_extends_from_its_first_to_its_last_span() -> None:
    concept = Concept("T1", "X", (Span(8, 9), Span(2, 4)))
    assert (concept.start, concept.end) == (2, 9)


def test_unknown_name_lists_the_registered_names_and_the_closest() -> None:
    table: Registry[type] = Registry("reader", {"brat": "builtins:int", "bioc": "builtins:str"})
    assert table.load("brat") is int
    with pytest.raises(
        InputError, match=r"corpus.format: unknown reader 'brta'; allowed: brat, bioc; did you mean 'brat'"
    ):
        table.load("brta", "corpus.format")


def test_problems_are_raised_together_and_long_lists_are_truncated() -> None:
    errors = ErrorList()
    errors.raise_if_any()
    for i in range(30):
        errors.add(f"a.ann:{i}", "wrong", allowed="right", remedy="mend it")
    with pytest.raises(InputError) as caught:
        errors.raise_if_any()
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.ann:0: wrong; right; mend it"
    assert lines[-1] == "... and 10 more problems"
