"""The contract of scorers, for each row of the registry."""

from __future__ import annotations

import pytest

from clinie_core.data.document import Concept, Span
from clinie_core.scoring import SCORERS, Counts, score_concepts

GOLD = (Concept("T1", "Drug", (Span(0, 7),)), Concept("T2", "Dosage", (Span(8, 12),)))


@pytest.mark.parametrize("name", SCORERS)
def test_scorer_has_strict_and_lenient_modes(name: str) -> None:
    assert {"strict", "lenient"} <= SCORERS.load(name).keys()


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("name", SCORERS)
def test_scorer_counts_disjoint_concepts_equally(name: str, mode: str) -> None:
    found = (GOLD[0], Concept("T2", "Dosage", (Span(14, 18),)))
    scores = score_concepts([(GOLD, GOLD), (GOLD, found), (GOLD, ()), ((), found)], (mode,), name)
    assert scores.documents(mode).tolist() == [[2, 0, 0], [1, 1, 1], [0, 0, 2], [0, 2, 0]]
    assert scores.by_type(mode) == {"Dosage": Counts(1, 2, 2), "Drug": Counts(2, 1, 1)}
