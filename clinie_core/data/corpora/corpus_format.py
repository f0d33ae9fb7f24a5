"""Base classes of corpus formats, which read and write one document at a time.

There are two kinds. A :class:`StandoffFormat` stores each document in a text file with annotation files
beside it. A :class:`StreamFormat` stores many documents in one file; it has subclasses for lines
(:mod:`~clinie_core.data.corpora.line_format`) and for JSON (:mod:`~clinie_core.data.corpora.json_items`).
Most formats only implement parsing and rendering of one document.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, ClassVar

from clinie_core.data.corpora.checking import repair_document, validate_document
from clinie_core.data.corpora.files import (
    GZIP_SUFFIX,
    FileGroup,
    add_file_name,
    list_files,
    make_file_name,
    make_file_names,
    match_suffix,
    open_binary,
    read_text,
)
from clinie_core.data.corpora.reading import AnnotationErrors, ReadingOptions
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList, InputError, Problem, fail
from clinie_core.shown_ids import show_id

__all__ = [
    "CorpusFormat",
    "StandoffFormat",
    "StreamFormat",
    "read_text",
]


class CorpusFormat(ABC):
    """Base class of all formats; each concrete subclass is an entry of ``FORMATS``.

    Args:
        options: How to treat faults of the files; by default each is an error.
    """

    example: ClassVar[str]
    """One line that describes the files of this format."""

    one_document_per_file: ClassVar[bool] = False
    """Whether each file contains one document; its name cannot name a split then."""

    files_without_documents: ClassVar[tuple[str, ...]] = ()
    """Names of files that belong to the format and contain no document."""

    read_only: ClassVar[bool] = False
    """Whether documents cannot be written in this format."""

    def __init__(self, options: ReadingOptions | None = None) -> None:
        self.options = options or ReadingOptions()
        self._notices: list[Problem] = []
        self._warned: set[Problem] = set()

    def collect_errors(self) -> AnnotationErrors:
        """Return an empty list for the faults of one document's annotations."""
        return AnnotationErrors(self.options, self._notices, self._warned)

    def take_notices(self) -> list[Problem]:
        """Return the warnings and skipped annotations since the last call."""
        taken, self._notices[:] = list(self._notices), []
        return taken

    def validate(self, document: Document, where: str) -> Iterator[Document | Problem]:
        """Yield a document if it is valid, or after leaving out its faults if the options request that."""
        if self.options.on_error == "stop":
            yield from validate_document(document, where)
            return
        repaired, notices = repair_document(document, where, trim=self.options.on_error == "trim")
        yield from notices
        yield repaired

    def skip(self, problems: Iterable[Problem], *, rest: bool = False) -> Iterator[Problem]:
        """Yield the problems of a document that cannot be read, as notices if the options request that.

        Args:
            problems: The problems.
            rest: Whether the rest of the file cannot be read either.
        """
        for problem in problems:
            if self.options.on_error == "stop":
                yield problem
            else:
                found = f"{problem.found}; the rest of the file is not read" if rest else problem.found
                yield replace(problem, found=found, severity="skipped")

    @abstractmethod
    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """Group the files that are read together; files in no group belong to another format.

        Args:
            files: The files of a corpus.
            root: The folder to which the names of the groups are relative.
        """

    @abstractmethod
    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """Read files, one document at a time.

        Yields:
            A document, or a problem that names file and line and quotes no text. A problem whose severity is
            not ``error`` is a notice.
        """

    def group_file(self, file: Path) -> FileGroup | None:
        """Return the group of a single file that was named by the user; None if the format reads only folders."""
        return None

    def attach_files(self, groups: Sequence[FileGroup], files: Sequence[Path]) -> list[FileGroup]:
        """Add files to groups of the same split in other folders; return all groups in the same order."""
        return list(groups)

    def explain_unread_file(self, file: Path) -> Problem | None:
        """Return why a file that looks like one of this format belongs to no group; None for other files."""
        return None

    def read(self, path: Path) -> Iterator[Document | Problem]:
        """Read a folder at any depth, or a file, one document at a time.

        Yields:
            A document, or a problem that names file and line and quotes no text.
        """
        if path.is_file():
            group = self.group_file(path)
            yield from self.read_groups([group] if group else [])
            return
        try:
            files = list_files(path) if path.is_dir() else []
        except InputError as error:
            yield from error.problems
            return
        groups = self.group_files(files, path)
        grouped = {file for group in groups for file in group.files.values()}
        yield from filter(None, (self.explain_unread_file(file) for file in files if file not in grouped))
        yield from self.read_groups(groups)

    @abstractmethod
    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """Write documents into a folder, which is created if it is missing; no file is overwritten."""

    def check_names(self, ids: Iterable[str]) -> None:
        """Check that documents with these ids have different file names; no-op for one file of all documents.

        Raises:
            InputError: With all ids that share a file name.
        """
        return

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


class StandoffFormat(CorpusFormat):
    """Base class of formats with one text file per document and annotation files of the same name."""

    one_document_per_file: ClassVar[bool] = True
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

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`CorpusFormat.group_files`; sorted by name, which is the path of the text without suffix."""
        found: dict[str, dict[str, Path]] = {}
        for file in files:
            match = match_suffix(file.name, self.suffixes)
            if match is not None:
                name = (file.relative_to(root).parent / match[0]).as_posix()
                found.setdefault(name, {}).setdefault(match[1], file)
        return [
            FileGroup(name, {s: found[name][s] for s in self.suffixes if s in found[name]})
            for name in sorted(found)
            if self.suffixes[0] in found[name]
        ]

    def group_file(self, file: Path) -> FileGroup | None:
        """See :meth:`CorpusFormat.group_file`; the other files of the document are in the same folder."""
        groups = self.group_files([other for other in file.parent.iterdir() if other.is_file()], file.parent)
        return next((group for group in groups if file in group.files.values()), None)

    def explain_unread_file(self, file: Path) -> Problem | None:
        """See :meth:`CorpusFormat.explain_unread_file`: annotations without a text, or a second file of one name."""
        match = match_suffix(file.name, self.suffixes)
        if match is None:
            return None
        text = f"{match[0]}{self.suffixes[0]}"
        spellings = (text, f"{match[0]}{self.suffixes[0].upper()}")
        if any(file.with_name(f"{name}{end}").is_file() for name in spellings for end in ("", GZIP_SUFFIX)):
            return Problem(str(file), f"another file is {match[0]}{match[1]} too", remedy="remove or rename one")
        remedy = "add the text or remove the annotations"
        return Problem(str(file), f"the text {text} is missing", remedy=remedy)

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`."""
        for group in groups:
            match = match_suffix(group.main.name, self.suffixes)
            stem = match[0] if match else group.main.stem
            where = {s: str(group.files.get(s, group.main.with_name(f"{stem}{s}"))) for s in self.suffixes}
            try:
                files = {suffix: read_text(file) for suffix, file in group.files.items()}
                document = self.parse(group.name, where, files)
            except InputError as error:
                yield from self.skip(error.problems)
            else:
                yield from self.take_notices()
                yield from self.validate(document, where[self.suffixes[min(1, len(self.suffixes) - 1)]])

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`CorpusFormat.write`; an id with slashes becomes a file in subfolders.

        Raises:
            InputError: If a file exists, or the ids of two documents map to the same file name. Nothing is written
                then if ``documents`` is a sequence.
        """
        if isinstance(documents, Sequence):
            make_file_names(document.id for document in documents)
        written: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for document in documents:
            name = add_file_name(document.id, written)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            for suffix, content in self.render(document).items():
                file = folder / f"{name}{suffix}"
                try:
                    with file.open("x", encoding="utf-8", newline="") as stream:
                        stream.write(content)
                except FileExistsError:
                    fail(str(file), "two documents have this file name", remedy="rename one, or write jsonl")

    def check_names(self, ids: Iterable[str]) -> None:
        """See :meth:`CorpusFormat.check_names`."""
        make_file_names(ids)

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        where = {suffix: f"{show_id(document.id)}{suffix}" for suffix in self.suffixes}
        return self.parse(make_file_name(document.id), where, self.render(document))


class StreamFormat(CorpusFormat):
    """Base class of formats with many documents in one file."""

    suffix: ClassVar[str]
    """Suffix of the files that are written and read."""

    other_suffixes: ClassVar[tuple[str, ...]] = ()
    """Further suffixes of files that are read, in lower case."""

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

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`CorpusFormat.group_files`; each file is a group."""
        groups = []
        for file in sorted(files):
            match = match_suffix(file.name, (self.suffix, *self.other_suffixes))
            if match is not None:
                name = (file.relative_to(root).parent / match[0]).as_posix()
                groups.append(FileGroup(name, {match[1]: file}))
        return groups

    def group_file(self, file: Path) -> FileGroup:
        """See :meth:`CorpusFormat.group_file`; the file may have any suffix."""
        match = match_suffix(file.name, (self.suffix, *self.other_suffixes))
        name = match[0] if match else file.name.removesuffix(GZIP_SUFFIX)
        return FileGroup(name, {self.suffix: file})

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`; documents are in the order of the files and of each file."""
        seen: dict[str, str] = {}
        for group in groups:
            try:
                with open_binary(group.main) as stream:
                    for item in self.read_stream(stream, str(group.main), group.name):
                        yield from self.take_notices()
                        yield from self._reject_duplicate(item, seen)
            except InputError as error:
                yield from self.skip(error.problems, rest=True)

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`CorpusFormat.write`; writes one file named ``documents`` with the format's suffix."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"documents{self.suffix}"
        try:
            with file.open("xb") as stream:
                self.write_stream(documents, stream)
        except FileExistsError:
            fail(str(file), "exists already", allowed="a new or empty folder")

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        stream = io.BytesIO()
        self.write_stream([document], stream)
        stream.seek(0)
        errors = ErrorList()
        for item in self.read_stream(stream, show_id(document.id), document.id):
            if not isinstance(item, Problem):
                return item[1]
            errors.extend([item])
        errors.raise_if_any()
        raise InputError(Problem(show_id(document.id), "no document after writing", remedy="report this fault"))

    def _reject_duplicate(
        self, item: tuple[str, Document] | Problem, seen: dict[str, str]
    ) -> Iterator[Document | Problem]:
        if isinstance(item, Problem):
            yield item
            return
        where, document = item
        if document.id in seen:
            found = f"duplicate document id, first at {seen[document.id]}"
            yield from self.skip([Problem(where, found, remedy="give each document its own id")])
            return
        seen[document.id] = where
        yield from self.validate(document, where)
