"""Base class of formats with one JSON value per file that contains the documents, at any depth."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel

from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.json_stream import ObjectLocator, read_items
from clinie_core.data.corpora.reading import validate_content
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem

__all__ = ["JsonItemFormat"]


class JsonItemFormat(StreamFormat):
    """Base class of JSON formats with an array of documents."""

    suffix: ClassVar[str] = ".json"

    path: ClassVar[str]
    """Path of the documents in a file, in ijson's notation."""

    title: ClassVar[str]
    """What the format calls a document, for messages."""

    model: ClassVar[type[BaseModel]]
    """Model of a document."""

    annotation_keys: ClassVar[tuple[str, ...]]
    """Fields of the model whose items can be left out."""

    brackets: ClassVar[tuple[str, str]]
    """What precedes and follows the documents in a file that is written."""

    @abstractmethod
    def build(self, item: Any, where: str, name: str) -> Document:
        """Build a document.

        Args:
            item: An instance of ``model``.
            where: File and number of the document, for messages.
            name: Id of a document that contains none.

        Raises:
            InputError: With all problems of the document.
        """

    @abstractmethod
    def dump(self, document: Document, number: int) -> dict[str, Any]:
        """Return the fields of a document.

        Args:
            document: The document; a discontinuous concept is written as its whole extent.
            number: 1-based number of the document in the file.
        """

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        lines = ObjectLocator(stream, where, depth=sum(map(self.brackets[0].count, "[{")))
        for number, content in enumerate(read_items(stream, where, self.path)):
            place = f"{where}: {self.title} {number + 1}"
            try:
                faults = self.collect_errors()
                item = validate_content(self.model.model_validate, content, place, faults, self.annotation_keys)
                faults.raise_if_any()
                yield place, self.build(item, place, f"{name}-{number + 1}")
            except InputError as error:
                yield from self.skip(lines.locate(error.problems, number))

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`."""
        opening, closing = self.brackets
        stream.write(opening.encode())
        for number, document in enumerate(documents, start=1):
            stream.write(((",\n" if number > 1 else "\n") + json.dumps(self.dump(document, number))).encode())
        stream.write(f"\n{closing}\n".encode())
