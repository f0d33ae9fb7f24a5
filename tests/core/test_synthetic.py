"""The synthetic corpus is seeded and consistent, and a lookup table does not solve it."""

from __future__ import annotations

import pytest
from decoder_from_scratch import score_look_up

from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus


def test_equal_seeds_generate_equal_notes() -> None:
    assert generate_splits(20, seed=1) == generate_splits(20, seed=1)
    assert generate_splits(20, seed=1) != generate_splits(20, seed=2)


def test_every_type_occurs_and_references_are_valid() -> None:
    notes = [note for split in generate_splits(120, seed=5).values() for note in split]
    assert {c.type for n in notes for c in n.concepts} == {
        "ADE", "Dosage", "Drug", "Frequency", "Problem", "Test", "Tobacco",
    }  # fmt: skip
    assert {r.type for n in notes for r in n.relations} == {
        "ADE-Drug", "Dosage-Drug", "Frequency-Drug", "Test-Problem",
    }  # fmt: skip
    assert {a.type for n in notes for a in n.attributes} == {"Negation", "Status"}
    for note in notes:
        ids = {c.id for c in note.concepts}
        assert all(r.head in ids and r.tail in ids for r in note.relations)
        assert all(a.target in ids for a in note.attributes)
        assert all(note.text[c.start : c.end].strip() == note.text[c.start : c.end] for c in note.concepts)


@pytest.mark.integration
def test_lookup_table_does_not_solve_the_corpus() -> None:
    splits = generate_splits(240, seed=13)
    assert score_look_up(Corpus({name: tuple(splits[name]) for name in ("train", "dev")}))["strict"] < 0.75


def test_too_few_documents_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        generate_splits(9, seed=1)
