"""Validity checks that apply to documents of every format; messages quote no text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from clinie_core.data.document import Concept, Document, Span
from clinie_core.errors import Problem
from clinie_core.shown_ids import show_id

__all__ = [
    "CHECKED_KINDS",
    "check_document",
    "check_mention",
    "find_split_leak",
    "normalize_whitespace",
    "repair_document",
    "validate_document",
]

UNUSABLE_IN_TYPE = re.compile(r"[\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Tab and line ends, which separate the fields of annotation files; a blank within a type is allowed."""

CHECKED_KINDS = (
    "concepts",
    "relations",
    "attributes",
    "normalizations",
    "equivalences",
    "notes",
    "entity_relations",
    "sections",
)
"""Fields of a document whose items are checked."""


def normalize_whitespace(text: str) -> str:
    """Replace each run of white space by one blank, to compare a mention with its source text."""
    return " ".join(text.split())


def check_mention(
    where: str, id_: str, mention: str, text_at_offsets: str, *, any_case: bool = False
) -> Problem | None:
    """Check that a file's copy of a mention equals the text at its offsets, ignoring white space.

    Tools differ in the white space that they write within a mention and between the parts of a discontinuous one.

    Args:
        where: File and line.
        id_: The annotation's id.
        mention: The copy in the file.
        text_at_offsets: The text at the offsets.
        any_case: Whether to ignore case, for formats that change it.

    Returns:
        A problem, or None if they are equal.
    """
    expected, found_text = "".join(text_at_offsets.split()), "".join(mention.split())
    if expected == found_text or (any_case and expected.casefold() == found_text.casefold()):
        return None
    lengths = f"{len(mention)} and {len(text_at_offsets)} characters"
    found = f"{id_}: the mention differs from the text at its offsets ({lengths})"
    remedy = "check line ends, and that offsets count characters, not bytes; offsets=trust accepts normalized mentions"
    return Problem(where, found, allowed="the same text", remedy=remedy)


def validate_document(document: Document, where: str) -> Iterator[Document | Problem]:
    """Yield the document if it is valid, otherwise its problems."""
    problems = check_document(document, where)
    if problems:
        yield from problems
    else:
        yield document


def find_split_leak(document: Document, split: str, split_of: dict[str, str]) -> Problem | None:
    """Check that no other split has a document of the same id, which would leak into evaluation.

    Args:
        document: The document.
        split: The split of the document.
        split_of: Maps the ids of the previous documents to their splits; updated in place.
    """
    first = split_of.setdefault(document.id, split)
    if first == split:
        return None
    found = f"document {show_id(document.id)} is also in {first}"
    return Problem(f"corpus.splits.{split}", found, remedy="keep it in one split")


def check_document(document: Document, where: str) -> list[Problem]:
    """Find offsets outside the text, unusable types, duplicate ids and dangling references.

    Args:
        document: A parsed document.
        where: The file, for messages.
    """
    return [problem for _, problem in _find_faults(document, where)]


def repair_document(document: Document, where: str, *, trim: bool) -> tuple[Document, list[Problem]]:
    """Leave out the faulty annotations of a document, and those that refer to them.

    Args:
        document: A parsed document.
        where: The file, for messages.
        trim: Whether to cut concepts at the end of the text and to remove white space at their boundaries first.

    Returns:
        The document and a notice for each annotation that was trimmed or left out.
    """
    notices: list[Problem] = []
    if trim:
        concepts = tuple(_trim_concept(concept, document.text) for concept in document.concepts)
        for before, after in zip(document.concepts, concepts, strict=True):
            if before != after:
                found = f"{before.id}: trimmed to the text without white space at the boundaries"
                notices.append(Problem(where, found, severity="trimmed"))
        document = replace(document, concepts=concepts)
    while faults := list(_find_faults(document, where)):
        notices += [replace(problem, severity="skipped") for _, problem in faults]
        faulty = {id(item) for item, _ in faults}  # by identity, since ids may not be unique
        kept: dict[str, Any] = {k: tuple(i for i in getattr(document, k) if id(i) not in faulty) for k in CHECKED_KINDS}
        document = replace(document, **kept)
    return document, notices


def _trim_concept(concept: Concept, text: str) -> Concept:
    spans = []
    for span in concept.spans:
        part = text[span.start : span.end]
        start = span.start + len(part) - len(part.lstrip())
        end = span.start + len(part.rstrip())
        if start < end:
            spans.append(Span(start, end))
    return replace(concept, spans=tuple(spans))


def _find_faults(document: Document, where: str) -> Iterator[tuple[object, Problem]]:
    """Yield each faulty item of a document with its problem."""
    length = len(document.text)
    for concept in document.concepts:
        for span in concept.spans:
            if span.end > length:
                found = f"{concept.id}: offsets {span.start}:{span.end} lie outside the text of {length} characters"
                remedy = "check that offsets count characters, not bytes"
                yield concept, Problem(where, found, allowed="0 <= start < end <= length", remedy=remedy)
        if not concept.spans:
            yield concept, Problem(where, f"{concept.id}: a concept without a span", allowed="at least one span")
    for section in document.sections:
        if section.span.end > length:
            yield section, Problem(where, "a section ends outside the text", allowed="offsets within the text")
    yield from _find_unusable_types(document, where)
    known: set[str] = set()
    for annotation in document.annotations:
        if annotation.id in known:
            found = f"duplicate id {annotation.id}"
            yield annotation, Problem(where, found, remedy="give each annotation its own id")
        known.add(annotation.id)
    yield from _find_dangling_references(document, where)


def _find_unusable_types(document: Document, where: str) -> Iterator[tuple[object, Problem]]:
    typed = (
        document.concepts,
        document.relations,
        document.attributes,
        document.equivalences,
        document.notes,
        document.entity_relations,
    )
    types = {item.type for kind in typed for item in kind}
    states = {
        type_: "contains a tab or line end" if type_.strip() else "is empty"
        for type_ in types
        if not type_.strip() or UNUSABLE_IN_TYPE.search(type_)
    }
    for item in (item for kind in typed for item in kind if item.type in states) if states else ():
        found = f"{getattr(item, 'id', '*')}: its type {states[item.type]}"
        yield item, Problem(where, found, allowed="a name without tab and line end", remedy="name the type")


def _find_dangling_references(document: Document, where: str) -> Iterator[tuple[object, Problem]]:
    concepts = {c.id for c in document.concepts}
    targets = concepts | {r.id for r in document.relations} | {r.id for r in document.entity_relations}
    all_targets = targets | {a.id for a in document.attributes}
    references: Iterable[tuple[object, str, tuple[str, ...], set[str]]] = (
        *((r, r.id, (r.head, r.tail), concepts) for r in document.relations),
        *((e, e.type, e.members, concepts) for e in document.equivalences),
        *((n, n.id, (n.target,), concepts) for n in document.normalizations),
        *((a, a.id, (a.target,), targets) for a in document.attributes),
        *((n, n.id, (n.target,), all_targets) for n in document.notes),
    )
    for item, id_, ends, known in references:
        for target in ends:
            if target not in known:
                found = f"{id_} refers to {target}, which does not exist"
                yield item, Problem(where, found, allowed="an annotation of this document")
