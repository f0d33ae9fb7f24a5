"""Where sentences end, by punctuation and line breaks alone; good enough to count how far two concepts stand apart."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["find_sentence", "find_sentence_starts"]

BOUNDARY = re.compile(r"[.!?][\"')\]]?\s+(?=[A-Z0-9\"'(\[])|\s*\n\s*")
"""Punctuation before a capital or a digit, or a line break."""


def find_sentence_starts(text: str) -> list[int]:
    """Offsets at which sentences begin, the first at 0."""
    return [0, *(match.end() for match in BOUNDARY.finditer(text) if match.end() < len(text))]


def find_sentence(starts: Sequence[int], offset: int) -> int:
    """Number of the sentence that an offset lies in, from 0."""
    return bisect_right(starts, offset) - 1
