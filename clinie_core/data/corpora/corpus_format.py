"""Base classes of corpus formats, which read and write one document at a time.

There are two kinds. A :class:`StandoffFormat` stores each document in a text file with annotation files
beside it. A :class:`StreamFormat` stores many documents in one file, often as lines (:class:`LineFormat`).
Most formats only implement parsing and rendering of one document.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

from clinie_core.data.corpora.checking import validate_document
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList, InputError, Problem, fail

__all__ = [
    "CorpusFormat",
    "DocumentLines",
    "LineFormat",
    "StandoffFormat",
    "StreamFormat",
    "read_text",
    "require_empty_folder",
]

MAX_LINE_BYTES = 64 * 2**20
"""Longest line in bytes, so that a file without line ends cannot exhaust the memory."""


class CorpusFormat(ABC):
    """Base class of all formats; each concrete subclass is an entry of ``FORMATS``."""

    example: ClassVar[str]
    """One line that describes the files of this format."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Document | Problem]:
        """Read a folder or file, one document at a time.

        Yields:
            A document, or a problem that names file and line and quotes no text.
        """

    @abstractmethod
    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """Write documents into a folder, which is created if it is missing."""

    @abstractmethod
    def round_trip(self, document: Document) -> Document:
        """Render a document and parse the result, which lacks the information that the format cannot represent."""

    def read_all(self, path: Path) -> tuple[Document, ...]:
        """Read all documents of a folder or file.

        Raises:
            InputError: With all problems of its files.
        """
        errors, documents = ErrorList(), []
        for item in self.read(path):
            if isinstance(item, Problem):
                errors.extend([item])
            else:
                documents.append(item)
        errors.raise_if_any()
        return tuple(documents)


def require_empty_folder(folder: Path) -> None:
    """Check that a folder is new or empty, so that nothing is overwritten.

    Raises:
        InputError: If the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(
            str(folder), "exists and is not empty", allowed="a new or empty folder", remedy="remove it or name another"
        )


def read_text(file: Path) -> str:
    """Read a file as UTF-8 and keep its line ends, since offsets count them.

    Raises:
        InputError: If it cannot be read or is not UTF-8.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        fail(
            str(file),
            f"broken UTF-8 at byte {error.start}",
            allowed="UTF-8",
            remedy="convert the file, for example by iconv",
        )
    except OSError as error:
        fail(str(file), f"cannot be read: {error.strerror}")


class StandoffFormat(CorpusFormat):
    """Base class of formats with one text file per document and annotation files of the same name."""

    suffixes: ClassVar[tuple[str, ...]]
    """Suffix of the text file, then those of the annotation files, which are optional."""

    @abstractmethod
    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """Parse one document.

        Args:
            name: The document's id.
            where: Maps each suffix to the file's name, for messages.
            files: Maps the suffix of each existing file to its content.

        Raises:
            InputError: With all its problems.
        """

    @abstractmethod
    def render(self, document: Document) -> dict[str, str]:
        """Return the content of each file of a document, by suffix."""

    def read(self, path: Path) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read`; documents are sorted by name."""
        suffix, *companions = self.suffixes
        names = {file.name.removesuffix(suffix) for file in path.glob(f"*{suffix}")}
        for companion in companions:
            for orphan in sorted(path.glob(f"*{companion}")):
                name = orphan.name.removesuffix(companion)
                if name not in names:
                    remedy = "add the text or remove the annotations"
                    yield Problem(str(orphan), f"the text {name}{suffix} is missing", remedy=remedy)
        for name in sorted(names):
            where = {s: str(path / f"{name}{s}") for s in self.suffixes}
            try:
                files = {s: read_text(Path(file)) for s, file in where.items() if s == suffix or Path(file).exists()}
                document = self.parse(name, where, files)
            except InputError as error:
                yield from error.problems
            else:
                yield from validate_document(document, where[companions[0]] if companions else where[suffix])

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`CorpusFormat.write`.

        Raises:
            InputError: If the ids of two documents map to the same file name.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        for document in documents:
            name = _make_file_name(document.id)
            if name in written:
                fail(str(folder / name), "two documents have this file name", remedy="rename one, or write jsonl")
            written.add(name)
            for suffix, content in self.render(document).items():
                with (folder / f"{name}{suffix}").open("w", encoding="utf-8", newline="") as stream:
                    stream.write(content)

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        where = {suffix: f"{document.id}{suffix}" for suffix in self.suffixes}
        return self.parse(_make_file_name(document.id), where, self.render(document))


def _make_file_name(id_: str) -> str:
    """Convert a document's id to a file name that cannot point outside the folder."""
    name = re.sub(r"[^\w.+@=-]", "_", id_).lstrip(".") or "_"
    return name if len(name.encode()) <= 200 else hashlib.sha256(id_.encode()).hexdigest()


class StreamFormat(CorpusFormat):
    """Base class of formats with many documents in one file."""

    suffix: ClassVar[str]

    @abstractmethod
    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """Read one file.

        Args:
            stream: The bytes of the file.
            where: The file's name, for messages.
            name: The file's name without suffix.

        Yields:
            A document with its location for messages, or a problem.

        Raises:
            InputError: If the rest of the file cannot be read.
        """

    @abstractmethod
    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """Write documents to one file."""

    def read(self, path: Path) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read`; documents are in the order of the sorted files and of each file."""
        seen: dict[str, str] = {}
        for file in [path] if path.is_file() else sorted(path.glob(f"*{self.suffix}")):
            try:
                with file.open("rb") as stream:
                    for item in self.read_stream(stream, str(file), file.name.removesuffix(self.suffix)):
                        yield from _reject_duplicate(item, seen)
            except InputError as error:
                yield from error.problems
            except OSError as error:
                yield Problem(str(file), f"cannot be read: {error.strerror}")

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`CorpusFormat.write`; writes one file named ``documents`` with the format's suffix."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"documents{self.suffix}").open("wb") as stream:
            self.write_stream(documents, stream)

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        stream = io.BytesIO()
        self.write_stream([document], stream)
        stream.seek(0)
        item = next(self.read_stream(stream, document.id, document.id))
        if isinstance(item, Problem):
            raise InputError(item)
        return item[1]


def _reject_duplicate(item: tuple[str, Document] | Problem, seen: dict[str, str]) -> Iterator[Document | Problem]:
    if isinstance(item, Problem):
        yield item
        return
    where, document = item
    if document.id in seen:
        found = f"duplicate document id, first at {seen[document.id]}"
        yield Problem(where, found, remedy="give each document its own id")
        return
    seen[document.id] = where
    yield from validate_document(document, where)


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
        for piece in self.split_documents(where, name, _read_lines(stream, where)):
            try:
                document = self.parse(piece)
            except InputError as error:
                yield from error.problems
            else:
                yield piece.locate(0), document

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`."""
        for document in documents:
            stream.write(self.render(document).encode())


def _read_lines(stream: BinaryIO, where: str) -> Iterator[str]:
    """Yield lines, split at line feeds only; a carriage return before a line feed is removed."""
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            fail(f"{where}:{number}", f"a line of more than {MAX_LINE_BYTES:,} bytes", allowed="shorter lines")
        try:
            yield line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            fail(
                f"{where}:{number}",
                f"broken UTF-8 at byte {error.start} of the line",
                allowed="UTF-8",
                remedy="convert the file, for example by iconv",
            )
