"""What every corpus format does: a path to documents, and documents to files, one document at a time.

There are two kinds. A :class:`StandoffFormat` keeps each document in a text file with companions
beside it; a :class:`StreamFormat` keeps many documents in one file, often (:class:`LineFormat`) as
lines. Most say only how one document is parsed and rendered; the rest follows from that.
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
"""The longest line that is read: a file without line ends must not fill the memory."""


class CorpusFormat(ABC):
    """Base of all formats; a concrete subclass is one row of ``FORMATS``."""

    example: ClassVar[str]
    """One line that says what a folder of this format holds."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Document | Problem]:
        """Read a folder or file, one document at a time.

        Yields:
            A document, or a problem that names file and line and quotes no text.
        """

    @abstractmethod
    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """Write documents into a folder, which is made."""

    @abstractmethod
    def round_trip(self, document: Document) -> Document:
        """What reading would give after writing: the document less what the format cannot carry."""

    def read_all(self, path: Path) -> tuple[Document, ...]:
        """Read a folder or file in whole.

        Raises:
            InputError: With all its problems.
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
    """Nothing is written over.

    Raises:
        InputError: If the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(str(folder), "is there and not empty", allowed="a new or empty folder", remedy="remove it or name another")


def read_text(file: Path) -> str:
    """Read a file as UTF-8 without touching its line ends, which offsets count.

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
    """One document a text file, with its annotations in companions of the same name."""

    suffixes: ClassVar[tuple[str, ...]]
    """The text's suffix, then those of the companions, each of which may be missing."""

    @abstractmethod
    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """Parse one document.

        Args:
            name: The document's id.
            where: Each suffix's file name, for messages.
            files: Each suffix's content; a companion that is not there is left out.

        Raises:
            InputError: With all its problems.
        """

    @abstractmethod
    def render(self, document: Document) -> dict[str, str]:
        """The content of each file of a document, by suffix."""

    def read(self, path: Path) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read`; documents come in the order of their names."""
        suffix, *companions = self.suffixes
        names = {file.name.removesuffix(suffix) for file in path.glob(f"*{suffix}")}
        for companion in companions:
            for orphan in sorted(path.glob(f"*{companion}")):
                name = orphan.name.removesuffix(companion)
                if name not in names:
                    remedy = "add the text or remove the annotations"
                    yield Problem(str(orphan), f"no {name}{suffix} beside it", remedy=remedy)
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
            InputError: If two documents would be one file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        for document in documents:
            name = _make_file_name(document.id)
            if name in written:
                fail(str(folder / name), "two documents would have this name", remedy="rename one, or write jsonl")
            written.add(name)
            for suffix, content in self.render(document).items():
                with (folder / f"{name}{suffix}").open("w", encoding="utf-8", newline="") as stream:
                    stream.write(content)

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        where = {suffix: f"{document.id}{suffix}" for suffix in self.suffixes}
        return self.parse(_make_file_name(document.id), where, self.render(document))


def _make_file_name(id_: str) -> str:
    """A document's id as a file name: one that cannot lead out of the folder."""
    name = re.sub(r"[^\w.+@=-]", "_", id_).lstrip(".") or "_"
    return name if len(name.encode()) <= 200 else hashlib.sha256(id_.encode()).hexdigest()


class StreamFormat(CorpusFormat):
    """Many documents in one file; a folder's files are read one after another."""

    suffix: ClassVar[str]

    @abstractmethod
    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """Read one file.

        Args:
            stream: Its bytes.
            where: Its name, for messages.
            name: Its name without suffix.

        Yields:
            A place for messages with its document, or a problem; :class:`InputError` may be raised
            where the rest of the file cannot be read.
        """

    @abstractmethod
    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """Write one file."""

    def read(self, path: Path) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read`; documents come in the order of the files and of their places there."""
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
        """See :meth:`CorpusFormat.write`; all go into one file, ``documents`` and the format's suffix."""
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
    """One document's lines in a file of lines.

    Args:
        where: The file.
        line: Number of the first line, from 1.
        lines: The lines without their ends.
        name: What the document is called if its lines do not say so.
    """

    where: str
    line: int
    lines: Sequence[str] = field(repr=False)
    name: str = ""

    def locate(self, index: int) -> str:
        """The file and the number of a line, by its index in the piece."""
        return f"{self.where}:{self.line + index}"


class LineFormat(StreamFormat):
    """A stream of lines."""

    @abstractmethod
    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """Cut a file's lines into documents."""

    @abstractmethod
    def parse(self, piece: DocumentLines) -> Document:
        """Parse one document.

        Raises:
            InputError: With all its problems.
        """

    @abstractmethod
    def render(self, document: Document) -> str:
        """A document's part of a file, with its line ends."""

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
    """Lines cut at line feeds alone; a carriage return before one goes with it."""
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
