"""Grounding: spans of generated mentions in the source text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from clinie_core.templates.template import Mention, Source

__all__ = ["ground"]


def ground(mentions: Iterable[Mention], source: Source) -> list[tuple[int, int] | None]:
    """Find the span of each mention in the source.

    A mention that has a span keeps it. Any other is searched from the start of the mention before it, because answers
    follow the order of the text, and then from the beginning. An exact match is preferred to one that ignores case. A
    span is used once for each type.

    Args:
        mentions: Mentions in the order of the answer.
        source: The source text.

    Returns:
        Start and end of each mention; None if the text does not contain it, which is a hallucination.
    """
    found: list[tuple[int, int] | None] = []
    used: set[tuple[str, tuple[int, int]]] = set()
    cursor = 0
    for mention in mentions:
        span = mention.span or _find_mention(mention, source.text, cursor, used)
        if span is not None:
            used.add((mention.type, span))
            cursor = span[0]
        found.append(span)
    return found


def _find_mention(
    mention: Mention, text: str, cursor: int, used: set[tuple[str, tuple[int, int]]]
) -> tuple[int, int] | None:
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
