"""The scorer of 2018 n2c2 track 2: worked examples, and properties that relate it to clinie's own counting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.errors import InputError
from clinie_core.scoring import Counts, score_concepts, score_relations, score_task

Spans = list[tuple[int, int]]


def concept(start: int, end: int, type_: str = "Drug", id_: str = "T") -> Concept:
    return Concept(id_, type_, (Span(start, end),))


spans = st.builds(lambda s, n, t: concept(s, s + n, t), st.integers(0, 30), st.integers(1, 6), st.sampled_from("AB"))
distinct = st.lists(spans, max_size=8, unique_by=lambda c: (c.extent, c.type))
documents = st.lists(st.tuples(distinct, distinct), max_size=4)


@pytest.mark.parametrize(
    ("gold", "predicted", "strict", "lenient"),
    [
        ([(0, 5)], [(0, 5)], (1, 0, 0), (1, 0, 0)),
        ([(0, 5)], [(0, 4)], (0, 1, 1), (1, 0, 0)),
        ([(0, 5)], [(5, 9)], (0, 1, 1), (0, 1, 1)),  # adjacent, without overlap
        ([(0, 5)], [(0, 2), (3, 5)], (0, 2, 1), (1, 0, 0)),  # the second prediction is left out
        ([(0, 3), (4, 8)], [(0, 8)], (0, 1, 2), (1, 0, 1)),  # one true positive for two concepts
        # The second prediction touches a concept that is taken, and is left out although another one is free.
        ([(0, 7), (8, 16)], [(0, 3), (5, 12)], (0, 2, 2), (1, 0, 1)),
        # The first prediction takes both concepts.
        ([(0, 7), (8, 16)], [(5, 12), (8, 16)], (1, 1, 1), (1, 0, 1)),
        # Nested concepts that are predicted exactly: in lenient mode the outer prediction takes both.
        ([(0, 10), (0, 4)], [(0, 10), (0, 4)], (2, 0, 0), (1, 0, 1)),
        # An exact prediction is left out if an earlier one overlaps its concept.
        ([(4, 9)], [(0, 5), (4, 9)], (1, 1, 0), (1, 0, 0)),
        # Duplicates count: a second identical annotation is missed, a second identical prediction is left out.
        ([(0, 5), (0, 5)], [(0, 5)], (1, 0, 1), (1, 0, 1)),
        ([(0, 5)], [(0, 5), (0, 5)], (1, 0, 0), (1, 0, 0)),
        ([(0, 5)], [(6, 9), (6, 9)], (0, 2, 1), (0, 2, 1)),
        ([], [(0, 4)], (0, 1, 0), (0, 1, 0)),
        ([(0, 4)], [], (0, 0, 1), (0, 0, 1)),
    ],
)
def test_counts_of_worked_examples(
    gold: Spans, predicted: Spans, strict: tuple[int, int, int], lenient: tuple[int, int, int]
) -> None:
    scores = score_concepts([([concept(*g) for g in gold], [concept(*p) for p in predicted])], scorer="n2c2-2018")
    assert (scores.micro("strict"), scores.micro("lenient")) == (Counts(*strict), Counts(*lenient))


def test_predictions_count_in_the_order_of_their_file(tmp_path: Path) -> None:
    gold = [concept(0, 10), concept(12, 16)]
    lines = ["T1\tDrug 12 16\tmnop\n", "T2\tDrug 0 4\tabcd\n", "T3\tDrug 8 13\tijklm\n"]
    found = []
    for number, order in enumerate((lines, sorted(lines, key=lambda line: int(line.split()[2])))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "n.txt").write_text("abcdefghijklmnop")
        (folder / "n.ann").write_text("".join(order))
        (predicted,) = Brat().read_all(folder)
        found.append(score_concepts([(gold, predicted.concepts)], scorer="n2c2-2018").micro("lenient").f1)
    assert found == [1.0, pytest.approx(2 / 3)]


def test_prediction_on_two_concepts_has_other_scores_under_each_name() -> None:
    pairs = [([concept(0, 7), concept(8, 16)], [concept(0, 3), concept(5, 12)])]
    official, own = (score_concepts(pairs, scorer=name).micro("lenient") for name in ("n2c2-2018", "clinie"))
    assert (official.precision, official.recall) == (1.0, 0.5)
    assert official.f1 == pytest.approx(2 / 3)
    assert own.f1 == 1.0


def test_types_do_not_take_concepts_of_other_types() -> None:
    gold = [concept(0, 10, "Drug"), concept(0, 10, "Reason")]
    predicted = [concept(0, 4, "Drug"), concept(2, 9, "Reason"), concept(0, 3, "Dosage")]
    by_type = score_concepts([(gold, predicted)], scorer="n2c2-2018").by_type("lenient")
    assert by_type == {"Drug": Counts(1, 0, 0), "Reason": Counts(1, 0, 0), "Dosage": Counts(0, 1, 0)}


def test_relation_is_left_out_if_an_earlier_one_took_its_annotation() -> None:
    drug, first, second = concept(0, 7, "Drug", "T1"), concept(8, 12, "Dosage", "T2"), concept(12, 16, "Dosage", "T3")
    gold = Document(
        "n", "x" * 20, (drug, first, second), (Relation("R1", "of", "T2", "T1"), Relation("R2", "of", "T3", "T1"))
    )
    wide, exact = concept(9, 14, "Dosage", "T4"), first
    found = Document(
        "n", "x" * 20, (drug, wide, exact), (Relation("R1", "of", "T4", "T1"), Relation("R2", "of", "T2", "T1"))
    )
    scores = score_relations([(gold, found)], scorer="n2c2-2018")
    assert (scores.micro("strict"), scores.micro("lenient")) == (Counts(1, 1, 1), Counts(1, 0, 1))


@given(documents)
def test_strict_equals_own_strict_without_duplicates(pairs: list[tuple[list[Concept], list[Concept]]]) -> None:
    official, own = (score_concepts(pairs, ("strict",), name) for name in ("n2c2-2018", "clinie"))
    assert official.by_type("strict") == own.by_type("strict")
    assert official.documents("strict").tolist() == own.documents("strict").tolist()


@given(documents)
def test_lenient_is_at_most_own_lenient_and_needs_no_order_of_gold(
    pairs: list[tuple[list[Concept], list[Concept]]],
) -> None:
    official, own = (score_concepts(pairs, ("lenient",), name) for name in ("n2c2-2018", "clinie"))
    assert official.micro("lenient").tp <= own.micro("lenient").tp
    reversed_gold = score_concepts([(g[::-1], p) for g, p in pairs], ("lenient",), "n2c2-2018")
    assert official.by_type("lenient") == reversed_gold.by_type("lenient")


@given(documents)
def test_lenient_equals_own_lenient_where_no_prediction_overlaps_two_concepts(
    pairs: list[tuple[list[Concept], list[Concept]]],
) -> None:
    def touches(a: Concept, b: Concept) -> bool:
        return a.type == b.type and a.start < b.end and b.start < a.end

    simple = [(gold, [p for p in found if sum(touches(p, g) for g in gold) <= 1]) for gold, found in pairs]
    official, own = (score_concepts(simple, ("lenient",), name) for name in ("n2c2-2018", "clinie"))
    assert official.by_type("lenient") == own.by_type("lenient")


def test_scores_of_a_task_name_their_scorer() -> None:
    gold = Document("n", "x" * 20, (concept(0, 7), concept(8, 16)))
    found = Document("n", "x" * 20, (concept(0, 3), concept(5, 12)))
    official, own = score_task("concepts", [(gold, found)], scorer="n2c2-2018"), score_task("concepts", [(gold, found)])
    assert (official.scorer, own.scorer) == ("n2c2-2018", "clinie")
    assert official.metrics()["lenient_recall"] == 0.5
    assert score_task("joint", [(gold, found)], scorer="n2c2-2018").metrics()["concept_lenient_recall"] == 0.5


def test_unknown_scorer_is_an_error_that_lists_the_scorers() -> None:
    with pytest.raises(InputError, match=r"unknown scorer 'n2c2-2017'.*clinie, n2c2-2018.*did you mean 'n2c2-2018'"):
        score_concepts([], scorer="n2c2-2017")
