"""Validity checks that apply to documents of every format; messages quote no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clinie_core.data.document import Document
from clinie_core.errors import Problem

__all__ = ["check_document", "check_mention", "find_split_leak", "normalize_whitespace", "validate_document"]


def normalize_whitespace(text: str) -> str:
    """Replace each run of white space by one blank, to compare a mention with its source text."""
    return " ".join(text.split())


def check_mention(
    where: str, id_: str, mention: str, text_at_offsets: str, *, any_case: bool = False
) -> Problem | None:
    """Check that a file's copy of a mention equals the text at its offsets, ignoring white space.

    Args:
        where: File and line.
        id_: The annotation's id.
        mention: The copy in the file.
        text_at_offsets: The text at the offsets.
        any_case: Whether to ignore case, for formats that change it.

    Returns:
        A problem, or None if they are equal.
    """
    expected, found_text = normalize_whitespace(text_at_offsets), normalize_whitespace(mention)
    if expected == found_text or (any_case and expected.casefold() == found_text.casefold()):
        return None
    lengths = f"{len(mention)} and {len(text_at_offsets)} characters"
    found = f"{id_}: the mention differs from the text at its offsets ({lengths})"
    return Problem(
        where, found, allowed="the same text", remedy="check line ends, and that offsets count characters, not bytes"
    )


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
    found = f"document {document.id} is also in {first}"
    return Problem(f"corpus.splits.{split}", found, remedy="keep it in one split")


def check_document(document: Document, where: str) -> list[Problem]:
    """Find offsets outside the text, duplicate ids and dangling references.

    Args:
        document: A parsed document.
        where: The file, for messages.
    """
    problems: list[Problem] = []
    length = len(document.text)
    for concept in document.concepts:
        for span in concept.spans:
            if span.end > length:
                found = f"{concept.id}: offsets {span.start}:{span.end} lie outside the text of {length} characters"
                problems.append(
                    Problem(
                        where,
                        found,
                        allowed="0 <= start < end <= length",
                        remedy="check that offsets count characters, not bytes",
                    )
                )
        if not concept.spans:
            problems.append(Problem(where, f"{concept.id}: a concept without a span", allowed="at least one span"))
    for section in document.sections:
        if section.span.end > length:
            problems.append(Problem(where, "a section ends outside the text", allowed="offsets within the text"))
    known: set[str] = set()
    for annotation in document.annotations:
        if annotation.id in known:
            problems.append(Problem(where, f"duplicate id {annotation.id}", remedy="give each annotation its own id"))
        known.add(annotation.id)
    concepts = {c.id for c in document.concepts}
    problems += _find_dangling_references(
        where, ((r.id, t) for r in document.relations for t in (r.head, r.tail)), concepts
    )
    problems += _find_dangling_references(
        where, ((e.type, m) for e in document.equivalences for m in e.members), concepts
    )
    problems += _find_dangling_references(where, ((n.id, n.target) for n in document.normalizations), concepts)
    targets = concepts | {r.id for r in document.relations}
    problems += _find_dangling_references(where, ((a.id, a.target) for a in document.attributes), targets)
    targets |= {a.id for a in document.attributes}
    problems += _find_dangling_references(where, ((n.id, n.target) for n in document.notes), targets)
    return problems


def _find_dangling_references(where: str, references: Iterable[tuple[str, str]], known: set[str]) -> list[Problem]:
    return [
        Problem(where, f"{id_} refers to {target}, which does not exist", allowed="an annotation of this document")
        for id_, target in references
        if target not in known
    ]
