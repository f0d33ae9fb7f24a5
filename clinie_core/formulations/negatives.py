"""Sampling of negative examples: most pairs of concepts are unrelated, and most questions have no answer."""

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
    """Keep every positive row and sample negative rows, over all documents together.

    Args:
        rows: Rows of each document.
        documents: The documents; their ids and the seed determine the sample.
        is_positive: Function that returns whether a row is positive.
        ratio: Expected number of negative rows for each positive row.
        seed: Seed of the sample.

    Returns:
        Rows of each document, in order.
    """
    positives = sum(is_positive(row) for own in rows for row in own)
    negatives = sum(map(len, rows)) - positives
    share = min(1.0, ratio * max(1, positives) / max(1, negatives))
    kept = []
    for document, own in zip(documents, rows, strict=True):
        draw = random.Random(f"{seed}/{document.id}")
        kept.append([row for row in own if is_positive(row) or draw.random() < share])
    return kept
