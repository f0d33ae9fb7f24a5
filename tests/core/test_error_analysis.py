"""Kinds of errors and their counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.scoring import score_task
from clinie_core.scoring.error_analysis import KINDS, classify_concepts, classify_relations
from clinie_core.scoring.error_counts import ErrorCounts

TEXT = "x" * 1200


def make_document(*concepts: tuple[int, int, str], relations: tuple[tuple[int, int, str], ...] = ()) -> Document:
    own = tuple(Concept(f"T{i}", type_, (Span(start, end),)) for i, (start, end, type_) in enumerate(concepts))
    links = tuple(Relation(f"R{i}", type_, f"T{a}", f"T{b}") for i, (a, b, type_) in enumerate(relations))
    return Document("d", TEXT, own, links)


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([(0, 5, "A")], [(0, 5, "A")], ["correct"]),
        ([(0, 5, "A")], [], ["missed"]),
        ([], [(0, 5, "A")], ["spurious"]),
        ([(0, 5, "A")], [(2, 7, "A")], ["boundary"]),
        ([(0, 5, "A")], [(0, 5, "B")], ["type"]),
        ([(0, 5, "A")], [(2, 7, "B")], ["both"]),
        ([(0, 5, "A")], [(5, 7, "A")], ["missed", "spurious"]),
        ([(0, 9, "A")], [(0, 3, "B"), (4, 9, "A")], ["boundary", "spurious"]),
        ([(0, 5, "A"), (0, 5, "B")], [(0, 5, "B"), (0, 4, "A")], ["correct", "boundary"]),
    ],
)
def test_each_kind_of_error(
    gold: list[tuple[int, int, str]], predicted: list[tuple[int, int, str]], kinds: list[str]
) -> None:
    found = classify_concepts(make_document(*gold), make_document(*predicted))
    assert sorted(outcome.kind for outcome in found) == sorted(kinds)


concepts = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 6), st.sampled_from("AB")).map(lambda c: (c[0], c[0] + c[1], c[2])),
    max_size=8,
    unique=True,
)


@given(concepts, concepts)
def test_every_annotation_counts_once_and_correct_ones_are_the_strict_matches(
    gold: list[tuple[int, int, str]], predicted: list[tuple[int, int, str]]
) -> None:
    pair = make_document(*gold), make_document(*predicted)
    found = classify_concepts(*pair)
    assert sum(outcome.gold is not None for outcome in found) == len(gold)
    assert sum(outcome.predicted is not None for outcome in found) == len(predicted)
    strict = score_task("concepts", [pair]).overall.micro("strict")
    assert sum(outcome.kind == "correct" for outcome in found) == strict.tp


def test_relations_are_counted_by_distance_and_by_whether_their_concepts_were_found(tmp_path: Path) -> None:
    ends = [(0, 5, "Drug"), (10, 15, "Dose"), (900, 905, "Dose")]
    gold = make_document(*ends, relations=((0, 1, "has"), (0, 2, "has")))
    predicted = make_document(ends[0], ends[1], relations=((0, 1, "lacks"),))
    assert sorted(o.kind for o in classify_relations(gold, predicted)) == ["missed", "type"]
    scores = score_task("joint", [(gold, predicted)])
    counts = ErrorCounts.count("joint", [(gold, predicted)], scores.overall)
    assert counts.tables["relations by distance"] == {
        "under 50 characters": {"type": 1},
        "from 500 characters": {"missed": 1},
    }
    assert counts.tables["relations by concepts"] == {
        "both concepts found": {"type": 1},
        "one concept found": {"missed": 1},
    }
    assert counts.tables["concepts by length"] == {"1,000 to 3,000 characters": {"correct": 2, "missed": 1}}
    assert counts.expand("Dose").tolist() == [[1.0, 0.0, 1.0]]
    counts.write(tmp_path)
    assert ErrorCounts.read(tmp_path) == counts
    assert set(KINDS) >= {kind for table in counts.tables.values() for row in table.values() for kind in row}
