"""clinie's native format: one JSON object per line, which represents every part of a document.

A line is ``{"version": 1, "document": {...}}`` with the fields of :class:`Document`; empty fields may be
omitted. Later versions of clinie read all earlier versions of the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from clinie_core.data.corpora.checking import CHECKED_KINDS
from clinie_core.data.corpora.line_format import DocumentLines, LineFormat
from clinie_core.data.corpora.reading import validate_line
from clinie_core.data.document import Document

__all__ = ["Jsonl"]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    document: Document


class Jsonl(LineFormat):
    """JSON Lines files."""

    example: ClassVar[str] = 'NAME.jsonl, each line {"version": 1, "document": {"id": ..., "text": ..., ...}}'
    suffix: ClassVar[str] = ".jsonl"

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`; each line that is not blank is a document."""
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield DocumentLines(where, number, [line])

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        faults = self.collect_errors()
        document = validate_line(_Line, piece.lines[0], piece.locate(0), faults, CHECKED_KINDS).document
        faults.raise_if_any()
        return document

    def render(self, document: Document) -> str:
        """See :meth:`LineFormat.render`."""
        line = _Line.model_construct(version=1, document=document)
        return line.model_dump_json(exclude_defaults=True).replace("\x85", "\\u0085") + "\n"
