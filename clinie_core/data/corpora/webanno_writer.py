r"""Writing of WebAnno TSV 3; see :mod:`clinie_core.data.corpora.webanno_tsv`.

Tokens are words and punctuation marks, divided where a concept begins or ends within one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clinie_core.data.corpora.offsets import count_utf16_units
from clinie_core.data.corpora.tokens import find_tokens
from clinie_core.data.corpora.webanno_layers import IDENTIFIER
from clinie_core.data.document import Concept, Document, Span, find_overlapping_spans

__all__ = ["FORMAT_LINE", "render_tsv", "unescape"]

FORMAT_LINE = "#FORMAT=WebAnno TSV 3.3"
LAYER, RELATION_LAYER = "webanno.custom.Concept", "webanno.custom.Relation"
NONE, NULL = "_", "*"
CONTROLS = {"\t": "t", "\n": "n", "\r": "r"}
ESCAPES = {letter: character for character, letter in CONTROLS.items()}
IN_TEXT, IN_VALUE = re.compile(r"[\\\t\r]"), re.compile(r"[\\\t\r\n\[\]|_*;]")
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
FEATURE_NAME = re.compile(r"[^|\s\\]+")


def unescape(text: str) -> str:
    """Replace escape sequences, such as a backslash and t, by their characters."""
    return ESCAPED.sub(lambda match: ESCAPES.get(match[1], match[1]), text)


def _escape(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: "\\" + CONTROLS.get(match[0], match[0]), text)


def render_tsv(document: Document) -> str:
    """Return the file of a document, in which each concept and relation has a number."""
    tokens = _find_tokens(document)
    covered = {c.id: find_overlapping_spans(tokens, c.start, c.end) for c in document.concepts}
    numbers = {id_: n for n, id_ in enumerate((c.id for c in document.concepts if covered[c.id]), start=1)}
    reserved = ("value", IDENTIFIER)
    features = sorted(
        {a.type for a in document.attributes if a.target in numbers and FEATURE_NAME.fullmatch(a.type)} - {*reserved}
    )
    rows: list[list[str]] = [[] for _ in tokens]
    for concept in document.concepts:
        place = covered[concept.id]
        if place is not None:
            values = _collect_values(document, concept, features)
            for at in range(place[0], place[1] + 1):
                rows[at].append("\t".join(f"{value}[{numbers[concept.id]}]" for value in values))
    ids = _number_tokens(document.text, tokens)
    relations: list[list[tuple[str, str]]] = [[] for _ in tokens]
    for r in document.relations:
        head, tail = covered[r.head], covered[r.tail]
        if head is not None and tail is not None:
            reference = f"{ids[head[0]]}[{numbers[r.head]}_{numbers[r.tail]}]"
            relations[tail[0]].append((_escape(IN_VALUE, r.type), reference))
    units = count_utf16_units(document.text)
    lines = [
        FORMAT_LINE,
        f"#T_SP={LAYER}|{'|'.join((*reserved, *features))}",
        f"#T_RL={RELATION_LAYER}|label|BT_{LAYER}",
        "",
    ]
    sentence = ""
    texts = _split_sentences(document.text, tokens)
    if not tokens:
        lines += ["", *_render_text(texts[0])]
    for at, token in enumerate(tokens):
        if ids[at].partition("-")[0] != sentence:
            sentence = ids[at].partition("-")[0]
            lines += ["", *_render_text(texts[int(sentence) - 1])]
        cells = [part.split("\t") for part in rows[at]]
        columns = ["|".join(column) for column in zip(*cells, strict=True)] or [NONE] * (len(reserved) + len(features))
        links = ["|".join(column) for column in zip(*relations[at], strict=True)] or [NONE] * 2
        word = _escape(IN_TEXT, document.text[token.start : token.end])
        lines.append("\t".join([ids[at], f"{units[token.start]}-{units[token.end]}", word, *columns, *links, ""]))
    return "\n".join(lines) + "\n"


def _render_text(text: str) -> list[str]:
    return [f"#Text={_escape(IN_TEXT, line)}" for line in text.split("\n")]


def _collect_values(document: Document, concept: Concept, features: Sequence[str]) -> list[str]:
    """Return the escaped type, identifier and attributes of a concept; a flag is its name."""
    values: dict[str, str] = {a.type: a.value or a.type for a in document.attributes if a.target == concept.id}
    entries = [n for n in document.normalizations if n.target == concept.id]
    separator = "/" if entries and "://" in entries[0].database else ":"
    identifier = f"{entries[0].database}{separator}{entries[0].reference}" if entries else None
    found = [concept.type, identifier, *(values.get(feature) for feature in features)]
    return [NULL if value is None else _escape(IN_VALUE, value) for value in found]


def _find_tokens(document: Document) -> list[Span]:
    """Return the tokens of a text, divided where a concept begins or ends."""
    cuts = sorted({at for c in document.concepts for at in (c.start, c.end)})
    tokens: list[Span] = []
    position = 0
    for token in find_tokens(document.text, words=True):
        start = token.start
        while position < len(cuts) and cuts[position] <= start:
            position += 1
        while position < len(cuts) and cuts[position] < token.end:
            tokens.append(Span(start, cuts[position]))
            start = cuts[position]
            position += 1
        tokens.append(Span(start, token.end))
    return tokens


def _find_sentence_starts(text: str, tokens: Sequence[Span]) -> list[int]:
    """Return the index of the first token of each line that has tokens."""
    return [at for at, token in enumerate(tokens) if at and "\n" in text[tokens[at - 1].end : token.start]]


def _number_tokens(text: str, tokens: Sequence[Span]) -> list[str]:
    """Return the ids of the tokens, ``SENTENCE-TOKEN`` from 1."""
    starts = {*_find_sentence_starts(text, tokens)}
    ids, sentence, token = [], 1, 0
    for at in range(len(tokens)):
        sentence, token = (sentence + 1, 1) if at in starts else (sentence, token + 1)
        ids.append(f"{sentence}-{token}")
    return ids


def _split_sentences(text: str, tokens: Sequence[Span]) -> list[str]:
    """Return the text of each sentence; only the line feed before the line of its first token is left out."""
    cuts = [text.rindex("\n", 0, tokens[at].start) for at in _find_sentence_starts(text, tokens)]
    return [text[start:end] for start, end in zip([0, *(at + 1 for at in cuts)], [*cuts, len(text)], strict=True)]
