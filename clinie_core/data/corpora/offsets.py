"""Offsets of annotation tools: code points or UTF-16 units, checked against the text.

Tools that run in a browser often count UTF-16 units, in which an emoji has length two. Formats with a copy of
each mention are read in the unit in which the copies match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from clinie_core.data.corpora.checking import check_mention
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import Span

__all__ = ["Mention", "convert_utf16_offsets", "count_utf16_units", "has_astral_characters", "resolve_mentions"]

Mention = tuple[str, int, int, str | None]
"""An annotation's id, its start and end in the file's unit, and the file's copy of its text, if any."""
Pair = tuple[int, int]


def has_astral_characters(text: str) -> bool:
    """Return whether a text has characters whose length in UTF-16 is two, such as emoji."""
    return bool(text) and max(text) > "\uffff"


def count_utf16_units(text: str) -> list[int]:
    """Return the UTF-16 offset of each code point, and of the end of the text."""
    return [0, *accumulate(1 + (character > "\uffff") for character in text)]


def convert_utf16_offsets(text: str) -> Callable[[int, int], Pair]:
    """Return a function that converts a range in UTF-16 units to code points.

    An offset outside the text, or between the two units of a character, becomes one past the text's length.
    """
    if not has_astral_characters(text):
        return lambda start, end: (start, end)
    outside = len(text) + 1
    code_points = {unit: index for index, unit in enumerate(count_utf16_units(text))}
    return lambda start, end: (code_points.get(start, outside), code_points.get(end, outside))


def resolve_mentions(text: str, where: str, mentions: Sequence[Mention], errors: AnnotationErrors) -> dict[str, Span]:
    """Return the spans of annotations and add a problem for each that does not fit the text.

    Offsets count code points, unless some copy of a mention does not match and all match in UTF-16 units.

    Args:
        text: The document's text.
        where: File and line or document, for messages.
        mentions: The annotations; their ids are unique.
        errors: Collection to which problems are added.
    """
    pairs: list[Pair] = [(start, end) for _, start, end, _ in mentions]
    if has_astral_characters(text) and not _all_match(text, mentions, pairs):
        convert = convert_utf16_offsets(text)
        converted = [convert(start, end) for start, end in pairs]
        if _all_match(text, mentions, converted):
            pairs = converted
    spans = {}
    for (id_, _, _, copy), (start, end) in zip(mentions, pairs, strict=True):
        span = errors.fit_span(where, id_, start, end, len(text))
        if span is not None and (copy is None or errors.check_mention(where, id_, copy, text[span.start : span.end])):
            spans[id_] = span
    return spans


def _all_match(text: str, mentions: Sequence[Mention], pairs: Iterable[Pair]) -> bool:
    return all(
        0 <= start < end <= len(text) and (copy is None or check_mention("", id_, copy, text[start:end]) is None)
        for (id_, _, _, copy), (start, end) in zip(mentions, pairs, strict=True)
    )
