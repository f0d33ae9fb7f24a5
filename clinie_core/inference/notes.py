"""Text files for prediction: their ids, and their texts with all faults reported together."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.files import decode_text, list_files, match_suffix, read_text
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList, InputError, Problem, fail
from clinie_core.shown_ids import register_files, show_id

__all__ = ["NoteFile", "find_notes", "read_annotated_notes", "read_notes"]

TEXT_SUFFIX = ".txt"
STANDARD_INPUT = "standard input"


@dataclass(frozen=True)
class NoteFile:
    """A text file, or standard input.

    Args:
        id: Id of its document: the path below the given folder, or the name of a given file, without ``.txt``.
        file: The file; None for standard input.
    """

    id: str
    file: Path | None

    @property
    def where(self) -> str:
        """Name of the file, for messages."""
        return STANDARD_INPUT if self.file is None else str(self.file)


def find_notes(paths: Iterable[Path], *, output: Path | None = None) -> list[NoteFile]:
    """Return the given text files, and the text files at any depth of the given folders.

    In a folder, the suffix of a text is ``.txt`` or ``.txt.gz`` in any letter case. Hidden files are skipped,
    because macOS adds some that are not text.

    Args:
        paths: Files, folders, and ``-`` for standard input.
        output: Folder for predictions, whose files are not notes even if it is in one of the folders.

    Raises:
        InputError: If a folder has no text files, or two texts would have the same id.
    """
    errors, notes = ErrorList(), list[NoteFile]()
    for path in paths:
        if str(path) == "-":
            notes.append(NoteFile("stdin", None))
        elif path.is_dir():
            inside = _list_texts(path, output)
            if not inside:
                errors.add(
                    str(path), "a folder without .txt files", allowed="text files, folders of .txt files, tables, or -"
                )
            notes += inside
        else:
            register_files([path], path.parent)
            notes.append(NoteFile(_remove_suffix(path.name), path))
    seen: dict[str, NoteFile] = {}
    for note in notes:
        if note.id in seen:
            errors.add(
                note.where,
                f"has the same name as {seen[note.id].where}",
                allowed="files with different names",
                remedy="predict them separately",
            )
        elif any("\ud800" <= character <= "\udfff" for character in note.id):
            errors.add(note.where, "the file's name is not UTF-8", remedy="rename the file")
        seen.setdefault(note.id, note)
    errors.raise_if_any()
    return notes


def _list_texts(folder: Path, output: Path | None) -> list[NoteFile]:
    own = None if output is None or output.resolve() == folder.resolve() else output.resolve()
    return [
        NoteFile(_remove_suffix(file.relative_to(folder).as_posix()), file)
        for file in list_files(folder)
        if match_suffix(file.name, (TEXT_SUFFIX,)) and (own is None or own not in file.resolve().parents)
    ]


def _remove_suffix(name: str) -> str:
    match = match_suffix(name, (TEXT_SUFFIX,))
    return match[0] if match else name


def read_notes(
    notes: Sequence[NoteFile], standard_input: BinaryIO | None = None, *, skipped: list[Problem] | None = None
) -> list[Document]:
    """Read texts as documents without annotations.

    Args:
        notes: The text files.
        standard_input: Stream to read for standard input; that of the process by default.
        skipped: List for the problems of files to leave out; None if a problem is an error.

    Raises:
        InputError: With one problem for each file that cannot be read or is not UTF-8, unless it is left out.
            Also if all files are left out.
    """
    errors, documents = ErrorList(), []
    for note in notes:
        try:
            if note.file is None:
                content = (standard_input or sys.stdin.buffer).read()
                text = decode_text(content.removeprefix(codecs.BOM_UTF8), note.where)
            else:
                text = read_text(note.file)
            documents.append(Document(note.id, text))
        except InputError as error:
            errors.extend(error.problems)
    _skip_or_raise(errors, documents, skipped)
    return documents


def _skip_or_raise(errors: ErrorList, documents: Sequence[Document], skipped: list[Problem] | None) -> None:
    """Move problems to a list of skipped ones, unless there is no such list or no document remains."""
    if skipped is None or not documents:
        errors.raise_if_any()
    else:
        skipped += [replace(problem, severity="skipped") for problem in errors.take_problems()]


def read_annotated_notes(
    notes: Sequence[NoteFile],
    documents: Sequence[Document],
    options: ReadingOptions | None = None,
    *,
    skipped: list[Problem] | None = None,
) -> list[Document]:
    """Add the concepts of the brat files that are beside the texts.

    Args:
        notes: The text files.
        documents: Their documents, as :func:`read_notes` returns them.
        options: How to treat faulty annotations.
        skipped: List for the annotations and files that are left out; None if a problem is an error.

    Raises:
        InputError: With the problems of all annotation files, including those that are missing, unless they are
            left out.
    """
    errors, annotated = ErrorList(), list[Document]()
    texts, format_ = {document.id: document for document in documents}, Brat(options)
    for note in notes:
        if note.id not in texts:
            continue
        try:
            items = _read_annotations(note, texts[note.id], format_)
        except InputError as error:
            items = list(error.problems)
        annotated += [item for item in items if isinstance(item, Document)]
        errors.extend(item for item in items if isinstance(item, Problem))
    _skip_or_raise(errors, annotated, skipped)
    if skipped is not None:
        skipped += errors.notices
    return annotated


def _read_annotations(note: NoteFile, document: Document, format_: Brat) -> list[Document | Problem]:
    annotations = None if note.file is None else note.file.with_name(f"{_remove_suffix(note.file.name)}.ann")
    if annotations is None or not annotations.is_file():
        found = "the model predicts relations between given concepts, and no concepts are given"
        fail(note.where, found, allowed=f"a brat file {show_id(note.id)}.ann in the same folder")
    where = {".txt": note.where, ".ann": str(annotations)}
    parsed = format_.parse(note.id, where, {".txt": document.text, ".ann": read_text(annotations)})
    return [*format_.take_notices(), *format_.validate(parsed, where[".ann"])]
