"""Conversion between documents and tagged tokens, for formats that refer to tokens instead of characters.

Tags may follow any scheme of the BIO family (IOB1, IOB2, BIOES, BILOU, IO). The scheme need not be
specified, because a tag sequence has the same meaning in all schemes that allow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clinie_core.data.bio_tagging import build_bio_labels, tag_units
from clinie_core.data.corpora.reading import DEFAULT_TYPE, AnnotationErrors
from clinie_core.data.document import Concept, Document, Span
from clinie_core.errors import fail

__all__ = ["Token", "build_document", "decode_tags", "find_tokens", "tag_sentences"]

WHITESPACE_TOKENS = {"tokens": "white space"}
"""Metadata of a document built from tokens: only white space separates its tokens."""
WORD_OR_PUNCTUATION = re.compile(r"\w+|[^\w\s]")
NON_WHITESPACE = re.compile(r"\S+")
MAX_GAP = 1_000_000
TAG_PATTERN = re.compile(r"([BIESLUMbi])-(.+)")
BARE_TAG = re.compile(r"([BIESLUM])-?")
"""A tag without a type, in corpora with one type."""
OUTSIDE_TAGS = ("O", "o", "", "_")
POSITION = re.compile(r"(:[0-9]+|: row [0-9]+)$")
"""The part of a place that follows the file, which a warning about the file omits."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its tag.

    Args:
        text: The token.
        tag: Its tag, in any scheme.
        start: Offset of the token, if the file contains offsets.
        where: File and line, for messages.
    """

    text: str = field(repr=False)
    tag: str
    start: int | None = None
    where: str = ""


def is_tag(tag: str) -> bool:
    """Return whether a tag marks a token outside concepts or has a prefix of the BIO family."""
    return tag in OUTSIDE_TAGS or bool(TAG_PATTERN.fullmatch(tag) or BARE_TAG.fullmatch(tag))


def decode_tags(tags: Sequence[str], bare_type: str = DEFAULT_TYPE) -> Iterator[tuple[str, int, int]]:
    """Decode the concepts of a tag sequence.

    ``B``, ``S`` and ``U`` begin a concept. ``I``, ``M``, ``E`` and ``L`` continue a concept of the same type,
    or begin one if there is none. ``E``, ``L``, ``S`` and ``U`` end it. Another tag is a type without a prefix.

    Args:
        tags: The tags of a sentence.
        bare_type: Type of tags that consist of a prefix.

    Yields:
        Type, first token, one past the last token.
    """
    open_type, begin = "", 0
    for at, tag in enumerate((*tags, "O")):
        match, bare = TAG_PATTERN.fullmatch(tag), BARE_TAG.fullmatch(tag)
        if tag in OUTSIDE_TAGS:
            prefix, type_ = "O", ""
        elif match:
            prefix, type_ = match[1].upper(), match[2]
        else:
            prefix, type_ = (bare[1], bare_type) if bare else ("I", tag)
        if open_type and (prefix in "OBSU" or type_ != open_type):
            yield open_type, begin, at
            open_type = ""
        if prefix != "O" and not open_type:
            open_type, begin = type_, at
        if open_type and prefix in "ELSU":
            yield open_type, begin, at + 1
            open_type = ""


def build_document(id_: str, sentences: Iterable[Sequence[Token]], where: str, errors: AnnotationErrors) -> Document:
    """Build a document's text from tokens, and its concepts from their tags.

    Tokens are joined by a blank and sentences by a line feed, unless the tokens have offsets.

    Args:
        id_: The document's id.
        sentences: The tokens of each sentence.
        where: The file, for messages.
        errors: List for warnings; its options name the type of tags without a type.

    Raises:
        InputError: If a token's offset is inside the previous token or more than a million characters after it.
    """
    parts: list[str] = []
    concepts: list[Concept] = []
    at, adjoining = 0, False
    for number, sentence in enumerate(sentences):
        spans = []
        for index, token in enumerate(sentence):
            first = index == 0
            between = "" if first and number == 0 else "\n" if first else " "
            if token.start is not None:
                gap = token.start - at
                if not 0 <= gap <= MAX_GAP:
                    fail(token.where or where, f"offset {token.start} does not follow the token before it")
                between = (between + " " * gap)[:gap]
                adjoining |= gap == 0 and at > 0
            parts += [between, token.text]
            start = at + len(between)
            at = start + len(token.text)
            spans.append(Span(start, at))
        tags = [token.tag for token in sentence]
        if any(BARE_TAG.fullmatch(tag) for tag in tags):
            type_ = errors.options.bare_tag_type
            remedy = "name the type by --bare-tag-type, or corpus.bare_tag_type in a space"
            errors.warn(POSITION.sub("", where), f"tags without a type; their type is {type_}", remedy=remedy)
        for type_, begin, end in decode_tags(tags, errors.options.bare_tag_type):
            span = Span(spans[begin].start, spans[end - 1].end)
            concepts.append(Concept(f"T{len(concepts) + 1}", type_, (span,)))
    return Document(id_, "".join(parts), tuple(concepts), metadata={} if adjoining else WHITESPACE_TOKENS)


def find_tokens(text: str, *, words: bool) -> list[Span]:
    """Find tokens separated by white space or, with ``words``, words and single punctuation marks."""
    return [
        Span(match.start(), match.end()) for match in (WORD_OR_PUNCTUATION if words else NON_WHITESPACE).finditer(text)
    ]


def tag_sentences(document: Document) -> list[list[tuple[Span, str]]]:
    """Tokenize a document and assign IOB2 tags; each line that is not blank is a sentence.

    Of concepts that share a token the longest is kept, and a discontinuous one covers its whole extent.
    """
    spans = find_tokens(document.text, words=document.metadata.get("tokens") != WHITESPACE_TOKENS["tokens"])
    labels = build_bio_labels(sorted({c.type for c in document.concepts}))
    tags, _ = tag_units(spans, document.concepts, labels)
    sentences: list[list[tuple[Span, str]]] = []
    previous = 0
    for span, tag in zip(spans, tags, strict=True):
        if not sentences or "\n" in document.text[previous : span.start]:
            sentences.append([])
        sentences[-1].append((span, labels[tag]))
        previous = span.end
    return sentences
