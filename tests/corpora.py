"""Small corpora that tests write and read."""

from __future__ import annotations

from pathlib import Path

from clinie_core.data.corpora import FORMATS
from clinie_core.data.document import Document

__all__ = ["list_mentions", "read_note"]


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
