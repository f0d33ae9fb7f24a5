"""Mentions that were written, back to places in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from clinie_core.templates.template import Mention, Source

__all__ = ["ground"]


def ground(mentions: Iterable[Mention], source: Source) -> list[tuple[int, int] | None]:
    """Find each mention's stretch in the source.

    A mention that says its stretch keeps it. Any other is looked for from where the one before it
    began, since answers follow the order of the text, then from the beginning; as it is written, then
    whatever its case. One stretch is given to a type once.

    Returns:
        For each mention its stretch; None where the text has no such words, which is a hallucination.
    """
    found: list[tuple[int, int] | None] = []
    used: set[tuple[str, tuple[int, int]]] = set()
    cursor = 0
    for mention in mentions:
        stretch = mention.span or _find(mention, source.text, cursor, used)
        if stretch is not None:
            used.add((mention.type, stretch))
            cursor = stretch[0]
        found.append(stretch)
    return found


def _find(mention: Mention, text: str, cursor: int, used: set[tuple[str, tuple[int, int]]]) -> tuple[int, int] | None:
    words = mention.text.split()
    if not words:
        return None
    body = r"\s+".join(map(re.escape, words))
    before = r"(?<!\w)" if words[0][0].isalnum() else ""
    after = r"(?!\w)" if words[-1][-1].isalnum() else ""
    for pattern, flags in ((before + body + after, 0), (before + body + after, re.IGNORECASE), (body, re.IGNORECASE)):
        places = [m.span() for m in re.finditer(pattern, text, flags) if (mention.type, m.span()) not in used]
        if places:
            return next((place for place in places if place[0] >= cursor), places[0])
    return None
