"""Rule-based sentence splitting by punctuation and line breaks, to count the sentences between two concepts."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["find_sentence", "find_sentence_starts"]

BOUNDARY = re.compile(r"[.!?][\"')\]]?\s+(?=[A-Z0-9\"'(\[])|(?<!\s)\s*\n\s*")
"""Punctuation before a capital or a digit, or a line break.

A match of white space begins where the white space does; otherwise a long run would be read once for each character.
"""


def find_sentence_starts(text: str) -> list[int]:
    """Return the offsets of the first character of each sentence; the first offset is 0."""
    return [0, *(match.end() for match in BOUNDARY.finditer(text) if match.end() < len(text))]


def find_sentence(starts: Sequence[int], offset: int) -> int:
    """Return the 0-based index of the sentence that contains an offset.

    Args:
        starts: Result of :func:`find_sentence_starts`.
        offset: A code point offset.
    """
    return bisect_right(starts, offset) - 1
