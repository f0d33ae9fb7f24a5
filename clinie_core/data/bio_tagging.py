"""The BIO scheme: encoding of concepts as one label per unit, and decoding of label sequences.

Source: Ramshaw and Marcus 1995 (IOB2 variant: each concept starts with B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.data.document import Concept, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORBIDDEN_SCORE",
    "build_bio_labels",
    "build_transition_scores",
    "decode_concepts",
    "tag_units",
    "viterbi_decode",
]

FORBIDDEN_SCORE = -1.0e4
"""Score of an illegal transition: low enough never to be selected, finite so that gradients stay finite."""


def build_bio_labels(types: Sequence[str]) -> tuple[str, ...]:
    """Return the labels ``O``, then ``B-TYPE`` and ``I-TYPE`` for each type in the order given."""
    return ("O", *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))


def build_transition_scores(labels: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Build scores that forbid ``I-X`` except after ``B-X`` or ``I-X``.

    Returns:
        Start scores ``[labels]`` and transition scores ``[from, to]``: 0 or :data:`FORBIDDEN_SCORE`.
    """
    inside = np.array([label.startswith("I-") for label in labels])
    start = np.where(inside, FORBIDDEN_SCORE, 0.0).astype(np.float32)  # [labels]
    types = np.array([label[2:] for label in labels])
    same = types[:, None] == types[None, :]  # [from, to]
    return start, np.where(inside[None, :] & ~same, FORBIDDEN_SCORE, 0.0).astype(np.float32)


def tag_units(
    units: Sequence[Span], concepts: Sequence[Concept], labels: Sequence[str]
) -> tuple[tuple[int, ...], tuple[Concept, ...]]:
    """Assign a label index to each unit.

    A concept covers each unit that it overlaps, and a discontinuous one its whole extent. Of concepts that
    share a unit the longest is kept. Types without a label are omitted.

    Args:
        units: Sorted, disjoint units.
        concepts: Concepts of the same text.
        labels: Result of :func:`build_bio_labels`.

    Returns:
        The label indices ``[units]``, and the concepts that are not represented exactly. These share a unit
        with a longer concept, do not begin and end with a unit, or are discontinuous.
    """
    number = {label: i for i, label in enumerate(labels)}
    tags = [0] * len(units)
    lost: list[Concept] = []
    starts = np.array([u.start for u in units], dtype=np.int64)
    ends = np.array([u.end for u in units], dtype=np.int64)
    for concept in sorted(concepts, key=lambda c: (c.start - c.end, c.start, c.type)):
        if f"B-{concept.type}" not in number:
            continue
        first = int(np.searchsorted(ends, concept.start, side="right"))
        last = int(np.searchsorted(starts, concept.end, side="left"))  # one past the last unit
        if first >= last or any(tags[first:last]):
            lost.append(concept)
            continue
        tags[first] = number[f"B-{concept.type}"]
        tags[first + 1 : last] = [number[f"I-{concept.type}"]] * (last - first - 1)
        if units[first].start != concept.start or units[last - 1].end != concept.end or len(concept.spans) > 1:
            lost.append(concept)
    return tuple(tags), tuple(lost)


def decode_concepts(units: Sequence[Span], tags: Sequence[int], labels: Sequence[str]) -> tuple[Concept, ...]:
    """Decode the concepts of a legal label sequence.

    Args:
        units: The spans of the units.
        tags: The label index of each unit.
        labels: The labels.

    Returns:
        Concepts in the order of the text, with the ids ``T1``, ``T2``, and so on.
    """
    concepts: list[Concept] = []
    for unit, tag in zip(units, tags, strict=True):
        label = labels[tag]
        if label.startswith("B-"):
            concepts.append(Concept(f"T{len(concepts) + 1}", label[2:], (unit,)))
        elif label.startswith("I-") and concepts:
            open_ = concepts[-1]
            concepts[-1] = Concept(open_.id, open_.type, (Span(open_.start, unit.end),))
    return tuple(concepts)


def viterbi_decode(
    emissions: NDArray[np.float32],
    start: NDArray[np.float32],
    transitions: NDArray[np.float32],
    end: NDArray[np.float32] | None = None,
) -> list[int]:
    """Find the label sequence with the highest sum of scores.

    Args:
        emissions: Scores ``[units, labels]``.
        start: Scores of the first label ``[labels]``.
        transitions: Scores ``[from, to]``.
        end: Scores of the last label ``[labels]``; optional.

    Returns:
        The label index of each unit.

    Source: Viterbi 1967, IEEE Transactions on Information Theory 13(2).
    """
    if not len(emissions):
        return []
    score = start + emissions[0]  # [labels]
    back = np.zeros(emissions.shape, dtype=np.int64)  # [units, labels]
    columns = np.arange(emissions.shape[1])
    for i in range(1, len(emissions)):
        paths = score[:, None] + transitions  # [from, to]
        back[i] = paths.argmax(axis=0)
        score = paths[back[i], columns] + emissions[i]
    if end is not None:
        score = score + end
    path = [int(score.argmax())]
    for i in range(len(emissions) - 1, 0, -1):
        path.append(int(back[i, path[-1]]))
    return path[::-1]
