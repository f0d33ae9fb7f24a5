"""Base class of formats with one JSON object per document, in lines or in an array."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel

from clinie_core.data.corpora.json_stream import ObjectLocator, read_items
from clinie_core.data.corpora.line_format import DocumentLines, LineFormat
from clinie_core.data.corpora.reading import validate_line
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem

__all__ = ["JsonLineFormat", "collect_metadata", "select_metadata"]

HEAD_BYTES = 64
"""Number of bytes in which the first character that is not white space tells lines from an array."""

ANNOTATION_KEYS = ("label", "labels", "entities", "relations", "spans")
"""Fields of a line whose items can be left out."""


class JsonLineFormat(LineFormat):
    """Base class of JSON Lines formats; each line that is not blank is a document.

    A file that contains one array of such objects is read too.
    """

    suffix: ClassVar[str] = ".jsonl"
    other_suffixes: ClassVar[tuple[str, ...]] = (".json", ".ndjson")
    model: ClassVar[type[BaseModel]]
    """Model of a line."""

    @abstractmethod
    def build(self, row: Any, where: str, name: str) -> Document:
        """Build a document.

        Args:
            row: The line, an instance of ``model``.
            where: File and line, for messages.
            name: Id of a document whose line contains none.

        Raises:
            InputError: With all problems of the line.
        """

    @abstractmethod
    def dump(self, document: Document) -> dict[str, Any]:
        """Return the fields of a document's line."""

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        array = stream.read(HEAD_BYTES).lstrip().startswith(b"[")
        stream.seek(0)
        yield from self._read_array(stream, where, name) if array else super().read_stream(stream, where, name)

    def _read_array(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        lines = ObjectLocator(stream, where, depth=1)
        for number, content in enumerate(read_items(stream, where, "item")):
            place = f"{where}: item {number + 1}"
            try:
                yield place, self._parse_row(json.dumps(content), place, f"{name}-{number + 1}")
            except InputError as error:
                yield from self.skip(lines.locate(error.problems, number))

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`."""
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield DocumentLines(where, number, [line], f"{name}-{number}")

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        return self._parse_row(piece.lines[0], piece.locate(0), piece.name)

    def _parse_row(self, content: str, where: str, name: str) -> Document:
        faults = self.collect_errors()
        row = validate_line(self.model, content, where, faults, ANNOTATION_KEYS)
        faults.raise_if_any()
        return self.build(row, where, name)

    def render(self, document: Document) -> str:
        """See :meth:`LineFormat.render`."""
        return json.dumps(self.dump(document)) + "\n"


def collect_metadata(fields: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the additional fields of an object that are strings or numbers; the others are tool-specific."""
    return {key: str(value) for key, value in (fields or {}).items() if isinstance(value, str | int | float)}


def select_metadata(document: Document, reserved: Collection[str]) -> dict[str, str]:
    """Return a document's metadata without the keys that have a meaning in the format."""
    return {key: value for key, value in document.metadata.items() if key not in reserved}
