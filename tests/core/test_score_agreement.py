"""Scores equal those of seqeval and nervaluate on the same predictions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate import Evaluator
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2

from clinie_core.data.bio_tagging import build_bio_labels, decode_concepts, tag_units
from clinie_core.data.document import Concept, Span
from clinie_core.scoring import score_concepts

TYPES = ("A", "B")
LABELS = build_bio_labels(TYPES)
UNITS = [Span(i, i + 1) for i in range(20)]
tags = st.lists(st.sampled_from(LABELS), min_size=20, max_size=20)
documents = st.lists(st.tuples(tags, tags), min_size=1, max_size=4)


def legal(sequence: list[str]) -> list[str]:
    """Return a legal IOB2 sequence, where an I without a concept to continue begins one."""
    fixed: list[str] = []
    for label in sequence:
        continues = fixed and fixed[-1][2:] == label[2:] and fixed[-1] != "O"
        fixed.append(f"B-{label[2:]}" if label.startswith("I-") and not continues else label)
    return fixed


def concepts(sequence: list[str]) -> tuple[Concept, ...]:
    return decode_concepts(UNITS, [LABELS.index(label) for label in sequence], LABELS)


@given(documents)
@settings(max_examples=60)
def test_strict_equals_seqeval_in_strict_mode(rows: list[tuple[list[str], list[str]]]) -> None:
    pairs = [(legal(gold), legal(predicted)) for gold, predicted in rows]
    ours = score_concepts([(concepts(g), concepts(p)) for g, p in pairs])
    if not ours.types:
        return
    precision, recall, f1, _ = precision_recall_fscore_support(
        [g for g, _ in pairs], [p for _, p in pairs], average="micro", scheme=IOB2, zero_division=0
    )
    micro = ours.micro("strict")
    assert (micro.precision, micro.recall, micro.f1) == pytest.approx((precision, recall, f1))


@given(documents)
@settings(max_examples=60)
def test_strict_partial_and_type_equal_nervaluate(rows: list[tuple[list[str], list[str]]]) -> None:
    pairs = [(concepts(legal(gold)), concepts(legal(predicted))) for gold, predicted in rows]

    def spans(side: int) -> list[list[dict[str, Any]]]:
        # nervaluate's ends are inclusive
        return [[{"label": c.type, "start": c.start, "end": c.end - 1} for c in pair[side]] for pair in pairs]

    theirs = Evaluator(spans(0), spans(1), tags=list(TYPES), loader="dict").evaluate()["overall"]
    ours = score_concepts(pairs, ("strict", "partial", "type"))
    for mode, name in (("strict", "strict"), ("partial", "partial"), ("type", "ent_type")):
        micro, other = ours.micro(mode), theirs[name]
        assert (micro.precision, micro.recall, micro.f1) == pytest.approx((other.precision, other.recall, other.f1))


@given(documents)
@settings(max_examples=60)
def test_overlap_is_symmetric_and_at_least_lenient(rows: list[tuple[list[str], list[str]]]) -> None:
    pairs = [(concepts(legal(gold)), concepts(legal(predicted))) for gold, predicted in rows]
    ours = score_concepts(pairs, ("strict", "lenient", "overlap"))
    swapped = score_concepts([(p, g) for g, p in pairs], ("overlap",)).micro("overlap")
    overlap = ours.micro("overlap")
    assert ours.micro("strict").tp <= ours.micro("lenient").tp <= overlap.tp
    assert (overlap.precision, overlap.recall) == (swapped.recall, swapped.precision)


def test_tags_and_concepts_convert_both_ways() -> None:
    sequence = legal(["B-A", "I-A", "O", "B-B", "B-B", "I-A"] + ["O"] * 14)
    numbers, lost = tag_units(UNITS, concepts(sequence), LABELS)
    assert [LABELS[n] for n in numbers] == sequence
    assert not lost
