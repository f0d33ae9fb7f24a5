"""Small corpora that tests write and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clinie_core.data.corpora import FORMATS
from clinie_core.data.document import Document

__all__ = ["WRITABLE", "list_mentions", "read_note", "write_corpus"]

WRITABLE = [name for name in FORMATS if not FORMATS.load(name).read_only]
"""Names of the formats that can be written."""


def read_note(format_: str, folder: Path, **files: str) -> Document:
    """Write the files of one document and read it.

    Args:
        format_: Name of the corpus format.
        folder: Folder to write to.
        files: Content by suffix: ``con="..."`` is the content of ``note.con``.
    """
    for suffix, content in files.items():
        (folder / f"note.{suffix}").write_text(content, encoding="utf-8", newline="")
    (document,) = FORMATS.load(format_)().read_all(folder)
    return document


def list_mentions(document: Document) -> list[tuple[str, str]]:
    """Return type and text of each concept."""
    return [(c.type, document.mention(c)) for c in document.concepts]


def write_corpus(format_: str, documents: Sequence[Document], folder: Path) -> None:
    """Write documents in any format; a relation of each is written in a format that is read only."""
    if not FORMATS.load(format_).read_only:
        FORMATS.load(format_)().write(documents, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = {"DRUG-AE.rel": "", "DRUG-DOSE.rel": "", "ADE-NEG.txt": ""}
    for number, document in enumerate(documents, start=1):
        text = document.text.replace("\n", " ")
        concepts = {concept.id: concept for concept in document.concepts}
        for relation in document.relations:
            mentions = [concepts[relation.head], concepts[relation.tail]]
            fields = [f"{document.mention(c)}|{c.start + 10}|{c.end + 10}" for c in mentions]
            name = "DRUG-DOSE.rel" if relation.type.startswith("Dos") else "DRUG-AE.rel"
            lines[name] += f"{number}|{text}|{'|'.join(fields)}\n"
        lines["ADE-NEG.txt"] += f"{number} NEG No finding in document {number}.\n"
    for name, content in lines.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")
