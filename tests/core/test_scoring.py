"""Concept scores: worked examples and general properties."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.document import Concept, Span
from clinie_core.scoring import Counts, score_concepts
from clinie_core.scoring.items import MODES as MODE_TABLE

MODES = tuple(MODE_TABLE)


def concept(start: int, end: int, type_: str = "Drug") -> Concept:
    return Concept("T", type_, (Span(start, end),))


spans = st.builds(lambda s, n, t: concept(s, s + n, t), st.integers(0, 30), st.integers(1, 6), st.sampled_from("AB"))
documents = st.lists(st.tuples(st.lists(spans, max_size=6), st.lists(spans, max_size=6)), max_size=4)


@pytest.mark.parametrize(
    ("gold", "predicted", "strict", "lenient"),
    [
        ([(0, 5)], [(0, 5)], (1, 0, 0), (1, 0, 0)),
        ([(0, 5)], [(0, 4)], (0, 1, 1), (1, 0, 0)),
        ([(0, 5)], [(5, 9)], (0, 1, 1), (0, 1, 1)),  # adjacent, without overlap
        ([(0, 5)], [(0, 2), (3, 5)], (0, 2, 1), (1, 0, 0)),  # a second prediction on one gold concept is ignored
        ([(0, 3), (4, 8)], [(0, 8)], (0, 1, 2), (1, 0, 1)),  # a prediction matches one gold concept
        ([(0, 9)], [(0, 4), (0, 9)], (1, 1, 0), (1, 0, 0)),
        ([], [(0, 4)], (0, 1, 0), (0, 1, 0)),
        ([(0, 4)], [], (0, 0, 1), (0, 0, 1)),
    ],
)
def test_strict_and_lenient_counts_of_worked_examples(
    gold: list[tuple[int, int]],
    predicted: list[tuple[int, int]],
    strict: tuple[int, int, int],
    lenient: tuple[int, int, int],
) -> None:
    scores = score_concepts([([concept(*g) for g in gold], [concept(*p) for p in predicted])])
    assert scores.micro("strict") == Counts(*strict)
    assert scores.micro("lenient") == Counts(*lenient)


def test_discontinuous_concept_counts_as_its_whole_extent() -> None:
    gold = Concept("T1", "Drug", (Span(0, 4), Span(8, 12)))
    assert score_concepts([([gold], [concept(0, 12)])]).micro("strict") == Counts(1, 0, 0)


def test_wrong_type_is_a_false_positive_and_a_false_negative() -> None:
    scores = score_concepts([([concept(0, 5, "Drug")], [concept(0, 5, "ADE")])])
    assert (scores.by_type("strict")["ADE"], scores.by_type("strict")["Drug"]) == (Counts(0, 1, 0), Counts(0, 0, 1))


@given(documents)
def test_identical_prediction_has_no_errors(pairs: list[tuple[list[Concept], list[Concept]]]) -> None:
    scores = score_concepts([(gold, gold) for gold, _ in pairs])
    for micro in (scores.micro("strict"), scores.micro("lenient")):
        assert (micro.fp, micro.fn) == (0, 0)


@given(documents)
def test_swapping_gold_and_prediction_swaps_strict_precision_and_recall(
    pairs: list[tuple[list[Concept], list[Concept]]],
) -> None:
    one, other = (score_concepts(p).micro("strict") for p in (pairs, [(b, a) for a, b in pairs]))
    assert (one.tp, one.fp, one.fn) == (other.tp, other.fn, other.fp)


@given(documents)
def test_lenient_is_at_least_strict_and_types_sum_to_the_total(
    pairs: list[tuple[list[Concept], list[Concept]]],
) -> None:
    scores = score_concepts(pairs)
    assert scores.micro("lenient").f1 >= scores.micro("strict").f1
    assert sum((c.tp for c in scores.by_type("strict").values()), 0) == scores.micro("strict").tp


@given(documents, st.integers())
def test_scores_do_not_depend_on_order(pairs: list[tuple[list[Concept], list[Concept]]], seed: int) -> None:
    draw = random.Random(seed)
    shuffled = [(draw.sample(g, len(g)), draw.sample(p, len(p))) for g, p in draw.sample(pairs, len(pairs))]
    one, other = score_concepts(pairs, MODES), score_concepts(shuffled, MODES)
    for mode in MODES:
        assert one.by_type(mode) == other.by_type(mode)
        assert sorted(one.documents(mode).tolist()) == sorted(other.documents(mode).tolist())
