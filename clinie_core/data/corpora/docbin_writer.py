"""Writing of spaCy's DocBin; see :mod:`clinie_core.data.corpora.docbin`.

Tokens are words and punctuation marks, divided where a concept begins or ends within one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from clinie_core.data.corpora.tokens import find_tokens
from clinie_core.data.document import Concept, Document, Span

__all__ = ["COLUMNS", "ENT_ID", "ID", "build_doc"]

COLUMNS = ("ORTH", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID", "ENT_ID")
"""Attributes of tokens that are read and written."""
ID, ENT_ID = "id", "ent_id"
GROUP = "sc"
"""Name of the span group that spaCy's span categorizer uses by default."""


def build_doc(document: Document, vocab: Any, spacy: Any) -> Any:
    """Return spaCy's object of a document; a discontinuous concept is written as its whole extent.

    Args:
        document: The document.
        vocab: spaCy's vocabulary.
        spacy: The module.
    """
    tokens, spaces = _split_tokens(document)
    words = [document.text[token.start : token.end] for token in tokens]
    doc = spacy.tokens.Doc(vocab, words=words, spaces=spaces)
    starts = {token.start: at for at, token in enumerate(tokens)}
    ends = {token.end: at + 1 for at, token in enumerate(tokens)}
    links = {n.target: f"{n.database}:{n.reference}" for n in reversed(document.normalizations)}
    ids = {a.target: a.value or "" for a in reversed(document.attributes) if a.type == ENT_ID}
    spans = {
        c.id: spacy.tokens.Span(
            doc,
            starts[c.start],
            ends[c.end],
            label=c.type,
            kb_id=links.get(c.id, ""),
            span_id=ids.get(c.id, ""),
        )
        for c in document.concepts
    }
    doc.set_ents([spans[concept.id] for concept in _choose_entities(document)], default="outside")
    doc.spans[GROUP] = list(spans.values())
    doc.user_data = {**{k: v for k, v in document.metadata.items() if k != ID}, ID: document.id}
    return doc


def _choose_entities(document: Document) -> list[Concept]:
    """Return concepts that do not overlap, the longest first, and that white space does not surround."""
    chosen: list[tuple[int, int]] = []
    found = []
    for concept in sorted(document.concepts, key=lambda c: (c.start - c.end, c.start)):
        part = document.text[concept.start : concept.end]
        at = bisect_left(chosen, concept.extent)
        free = (at == 0 or chosen[at - 1][1] <= concept.start) and (at == len(chosen) or concept.end <= chosen[at][0])
        if free and part == part.strip():
            chosen.insert(at, concept.extent)
            found.append(concept)
    return found


def _split_tokens(document: Document) -> tuple[list[Span], list[bool]]:
    """Return tokens that cover the text, and whether a blank outside the tokens follows each."""
    starts = {concept.start for concept in document.concepts}
    ends = {concept.end for concept in document.concepts}
    cuts = sorted(starts | ends)
    tokens: list[Span] = []
    spaces: list[bool] = []
    for piece, is_gap in _iterate_pieces(document.text):
        blank = is_gap and tokens and document.text[piece.start : piece.end] == " "
        if blank and piece.start not in starts and piece.end not in ends:
            spaces[-1] = True
            continue
        for part in _divide(piece, cuts):
            tokens.append(part)
            spaces.append(False)
    return tokens, spaces


def _iterate_pieces(text: str) -> Iterator[tuple[Span, bool]]:
    """Yield the tokens and the gaps between them, and whether each is a gap."""
    at = 0
    for token in find_tokens(text, words=True):
        if at < token.start:
            yield Span(at, token.start), True
        yield token, False
        at = token.end
    if at < len(text):
        yield Span(at, len(text)), True


def _divide(piece: Span, cuts: Sequence[int]) -> Iterator[Span]:
    """Yield the parts of a piece between the cuts within it."""
    inside = cuts[bisect_left(cuts, piece.start + 1) : bisect_left(cuts, piece.end)]
    bounds = [piece.start, *inside, piece.end]
    for start, end in pairwise(bounds):
        yield Span(start, end)
