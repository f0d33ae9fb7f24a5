"""Annotated mentions that a generated answer cannot express, although the model generates the gold answer."""

from __future__ import annotations

from collections.abc import Sequence

from clinie_core.formulations.representable import LossReason
from clinie_core.templates.grounding import ground
from clinie_core.templates.template import Answer, Mention, Source, Template

__all__ = ["explain_lost_mentions"]

Key = tuple[str, tuple[int, int] | None]


def explain_lost_mentions(
    gold: Sequence[Mention], source: Source, template: Template, whole: str, limited: str
) -> dict[Key, LossReason]:
    """Return the mentions that are not recovered from the gold answer, by type and span, with the reason.

    Args:
        gold: The annotated mentions, with spans.
        source: The text that the answer describes.
        template: Format of the answer.
        whole: The gold answer, after its conversion to tokens and back.
        limited: The same, cut at the longest answer.
    """
    found = _read_mentions(template.parse(whole, source), source)
    kept = found if limited == whole else _read_mentions(template.parse(limited, source), source)
    expected = {(mention.type, mention.span) for mention in gold}
    misplaced = {(type_, _normalize(source, span)) for type_, span in found - expected}
    lost: dict[Key, LossReason] = {}
    for mention in gold:
        key = (mention.type, mention.span)
        if mention.span is None or key in kept:
            continue
        if key in found:
            lost[key] = "answer length"
        elif (mention.type, _normalize(source, mention.span)) in misplaced:
            lost[key] = "ambiguous occurrence"
        elif mention.span[0] not in source.unit_starts or mention.span[1] not in source.unit_ends:
            lost[key] = "unit boundary"
        elif any(_overlap(mention, other) for other in gold):
            lost[key] = "overlap"
        else:
            lost[key] = "answer text"
    return lost


def _read_mentions(answer: Answer, source: Source) -> set[Key]:
    spans = ground(answer.mentions, source)
    return {(mention.type, span) for mention, span in zip(answer.mentions, spans, strict=True) if span is not None}


def _normalize(source: Source, span: tuple[int, int] | None) -> str:
    """Return the text of a span in the form in which grounding compares it."""
    return " ".join(source.text[slice(*span)].casefold().split()) if span else ""


def _overlap(one: Mention, other: Mention) -> bool:
    if one.span is None or other.span is None or (one.type, one.span) == (other.type, other.span):
        return False
    return one.span[0] < other.span[1] and other.span[0] < one.span[1]
