"""Scores of relations and attributes on worked examples, and intervals and tests over documents."""

from __future__ import annotations

import numpy as np
import pytest

from clinie_core.data.document import Attribute, Concept, Document, EntityRelation, Relation, Span
from clinie_core.scoring import Counts, score_attributes, score_entity_relations, score_relations
from clinie_core.scoring.significance import bootstrap_interval, compare

DRUG = Concept("T1", "Drug", (Span(0, 5),))
DOSE = Concept("T2", "Strength", (Span(6, 11),))
LATE = Concept("T3", "Strength", (Span(20, 25),))


def note(concepts: tuple[Concept, ...], *relations: tuple[str, str, str], **values: str) -> Document:
    links = tuple(Relation(f"R{i}", t, h, e) for i, (t, h, e) in enumerate(relations))
    attributes = tuple(Attribute(f"A{i}", "Status", id_, v) for i, (id_, v) in enumerate(values.items()))
    return Document("d", "x" * 40, concepts, links, attributes)


GOLD = note((DRUG, DOSE, LATE), ("Strength-Drug", "T2", "T1"), T1="current")


@pytest.mark.parametrize(
    ("predicted", "strict", "lenient"),
    [
        (GOLD, (1, 0, 0), (1, 0, 0)),
        (note((DRUG, DOSE), ("Strength-Drug", "T1", "T2")), (0, 1, 1), (0, 1, 1)),  # direction counts
        (note((DRUG, DOSE), ("Dosage-Drug", "T2", "T1")), (0, 1, 1), (0, 1, 1)),  # type counts
        (note((DRUG, DOSE, LATE), ("Strength-Drug", "T3", "T1")), (0, 1, 1), (0, 1, 1)),  # the other strength
        (note((DRUG, Concept("T2", "Strength", (Span(8, 14),))), ("Strength-Drug", "T2", "T1")), (0, 1, 1), (1, 0, 0)),
        (note((DRUG, Concept("T2", "Dosage", (Span(6, 11),))), ("Strength-Drug", "T2", "T1")), (0, 1, 1), (0, 1, 1)),
        (note((DRUG, DOSE)), (0, 0, 1), (0, 0, 1)),
    ],
)
def test_relations_need_type_direction_and_both_ends(
    predicted: Document, strict: tuple[int, int, int], lenient: tuple[int, int, int]
) -> None:
    scores = score_relations([(GOLD, predicted)])
    assert scores.micro("strict") == Counts(*strict)
    assert scores.micro("lenient") == Counts(*lenient)


def test_attributes_need_value_and_concept() -> None:
    assert score_attributes([(GOLD, GOLD)]).micro("strict") == Counts(1, 0, 0)
    assert score_attributes([(GOLD, note((DRUG,), T1="past"))]).micro("strict") == Counts(0, 1, 1)
    wider = note((Concept("T1", "Drug", (Span(0, 8),)),), T1="current")
    scores = score_attributes([(GOLD, wider)])
    assert (scores.micro("strict"), scores.micro("lenient")) == (Counts(0, 1, 1), Counts(1, 0, 0))


def test_document_level_relations_are_scored() -> None:
    gold = Document("d", "x", entity_relations=(EntityRelation("R1", "CID", "D1", "D2"),))
    other = Document("d", "x", entity_relations=(EntityRelation("R1", "CID", "D2", "D1"),))
    assert score_entity_relations([(gold, gold), (gold, other)]).micro("strict") == Counts(1, 1, 1)


def test_macro_averages_types_and_document_macro_averages_documents() -> None:
    nothing = note((DRUG, DOSE))
    other = note((DRUG, DOSE), ("Dosage-Drug", "T2", "T1"))
    scores = score_relations([(GOLD, GOLD), (other, nothing)])
    assert scores.macro_f1("strict") == pytest.approx(0.5)
    assert scores.document_macro("strict") == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert scores.documents("strict").tolist() == [[1, 0, 0], [0, 0, 1]]


def test_interval_has_the_nominal_coverage() -> None:
    draw = np.random.default_rng(3)
    held = 0
    for trial in range(200):
        hits = draw.binomial(20, 0.8, size=60)
        documents = np.stack([hits, np.zeros(60), 20 - hits], axis=1).astype(float)
        low, high = bootstrap_interval(documents, "recall", resamples=500, seed=trial)
        held += low <= 0.8 <= high
    assert 180 <= held <= 199  # 190 expected of 200 at 95 %


def test_comparison_detects_a_real_difference_and_no_other() -> None:
    draw = np.random.default_rng(5)
    found = {"same": 0, "better": 0}
    for trial in range(60):
        for name, rate in (("same", 0.7), ("better", 0.8)):
            first, second = draw.binomial(10, rate, size=80), draw.binomial(10, 0.7, size=80)
            tables = [np.stack([h, 10 - h, 10 - h], axis=1).astype(float) for h in (first, second)]
            comparison = compare(tables[0], tables[1], resamples=400, seed=trial)
            found[name] += comparison.randomization_p < 0.05
            assert (comparison.low <= 0 <= comparison.high) == (comparison.bootstrap_p > 0.05) or (
                abs(comparison.bootstrap_p - 0.05) < 0.02
            )
    assert found["better"] >= 57
    assert found["same"] <= 8  # 3 expected of 60


def test_equal_systems_do_not_differ_and_unequal_documents_are_rejected() -> None:
    table = np.array([[3.0, 1.0, 0.0], [2.0, 0.0, 2.0]])
    comparison = compare(table, table)
    assert (comparison.difference, comparison.randomization_p, comparison.bootstrap_p) == (0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="the same documents"):
        compare(table, table[:1])
    with pytest.raises(ValueError, match="at least one document"):
        bootstrap_interval(table[:0])
