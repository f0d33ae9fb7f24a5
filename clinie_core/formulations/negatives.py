"""Training on some of what has no answer: most pairs of concepts are unrelated, most questions have no answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from clinie_core.data.document import Document

__all__ = ["sample_negatives"]

Row = TypeVar("Row")


def sample_negatives(
    rows: Sequence[Sequence[Row]],
    documents: Sequence[Document],
    is_positive: Callable[[Row], bool],
    *,
    ratio: float,
    seed: int,
) -> list[list[Row]]:
    """Keep every positive row and so many negative ones for each, over all documents together.

    Args:
        rows: Those of each document.
        documents: Whose ids, with the seed, decide which negatives are drawn.
        is_positive: Tells a row that has an answer.
        ratio: Negatives for each positive.
        seed: Equal seeds keep equal rows.
    """
    positives = sum(is_positive(row) for own in rows for row in own)
    negatives = sum(map(len, rows)) - positives
    share = min(1.0, ratio * max(1, positives) / max(1, negatives))
    kept = []
    for document, own in zip(documents, rows, strict=True):
        draw = random.Random(f"{seed}/{document.id}")
        kept.append([row for row in own if is_positive(row) or draw.random() < share])
    return kept
