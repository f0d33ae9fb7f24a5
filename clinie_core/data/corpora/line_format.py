"""Base class of corpus formats whose files consist of lines, and the lines of one document."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.files import read_lines
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem

__all__ = ["DocumentLines", "LineFormat"]


@dataclass(frozen=True)
class DocumentLines:
    """The lines of one document in a file.

    Args:
        where: The file.
        line: 1-based number of the first line.
        lines: The lines without line ends.
        name: The document's id, unless its lines contain one.
    """

    where: str
    line: int
    lines: Sequence[str] = field(repr=False)
    name: str = ""

    def locate(self, index: int) -> str:
        """Return file and line number of the line at an index, for messages."""
        return f"{self.where}:{self.line + index}"


class LineFormat(StreamFormat):
    """Base class of stream formats that consist of lines."""

    @abstractmethod
    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """Divide the lines of a file into documents."""

    @abstractmethod
    def parse(self, piece: DocumentLines) -> Document:
        """Parse one document.

        Raises:
            InputError: With all its problems.
        """

    @abstractmethod
    def render(self, document: Document) -> str:
        """Return the lines of a document, with line ends."""

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        for piece in self.split_documents(where, name, read_lines(stream, where)):
            try:
                document = self.parse(piece)
            except InputError as error:
                yield from self.skip(error.problems)
            else:
                yield piece.locate(0), document

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`."""
        for document in documents:
            stream.write(self.render(document).encode())
