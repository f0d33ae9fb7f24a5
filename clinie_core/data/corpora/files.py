"""Files of a corpus: listing without files of other programs, names, byte order marks and gzip."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, cast

from clinie_core.data.corpora.split_names import find_split
from clinie_core.errors import ErrorList, InputError, fail
from clinie_core.shown_ids import register_files, show_id

__all__ = [
    "FileGroup",
    "add_file_name",
    "decode_text",
    "is_ignored",
    "is_litter",
    "list_files",
    "make_file_name",
    "make_file_names",
    "match_suffix",
    "open_binary",
    "read_lines",
    "read_text",
]

MAX_NAME_BYTES = 251
"""Longest file name in bytes, without a suffix of four bytes, on common file systems."""
GZIP_SUFFIX = ".gz"
GZIP_MARK = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
LITTER = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "annotation.conf",
        "visual.conf",
        "tools.conf",
        "kb_shortcuts.conf",
    }
)
"""Names of files and folders without documents, in lower case: those of operating systems and of brat's settings."""

MAX_LINE_BYTES = 64 * 2**20
"""Longest line in bytes, so that a file without line ends cannot exhaust the memory."""


@dataclass(frozen=True)
class FileGroup:
    """Files that are read together: a text with its annotation files, a file of documents, or a dataset's folder.

    Args:
        name: The document's id, or the name from which ids are derived.
        files: The files by suffix; the first is the text or the file of documents.
    """

    name: str
    files: Mapping[str, Path]

    @property
    def main(self) -> Path:
        """The text, or the file of documents."""
        return next(iter(self.files.values()))


def is_litter(name: str) -> bool:
    """Return whether a file or folder of this name never contains documents; hidden files count as such."""
    return name.startswith(".") or name.casefold() in LITTER


def is_ignored(relative: Path, patterns: Sequence[str]) -> bool:
    """Return whether a path, one of its folders or one of their names matches a pattern of ``--ignore``."""
    paths = [relative, *(parent for parent in relative.parents if parent.name)]
    names = {name for path in paths for name in (path.name, path.as_posix())}
    return any(fnmatchcase(name, pattern.removesuffix("/")) for pattern in patterns for name in names)


def list_files(root: Path) -> list[Path]:
    """List the files below a folder at any depth, sorted and without litter; links to folders are followed.

    Raises:
        InputError: If a folder cannot be listed, or a file name is not UTF-8.
    """
    found: list[Path] = []

    def reject(error: OSError) -> NoReturn:
        fail(str(error.filename), f"cannot be listed: {error.strerror}")

    for folder, subfolders, names in os.walk(root, onerror=reject, followlinks=True):
        if _is_cycle(Path(folder), root):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not is_litter(name))
        found += [Path(folder, name) for name in names if not is_litter(name)]
    register_files(found, root)
    _check_names(sorted(found))
    return sorted(found)


def _check_names(files: Sequence[Path]) -> None:
    """Check that file names, which become ids of documents, are UTF-8.

    Raises:
        InputError: With a problem for each other name.
    """
    errors = ErrorList()
    for file in files:
        shown = os.fsencode(file).decode(errors="replace")
        if shown != str(file):
            errors.add(shown, "the file name is not UTF-8", allowed="UTF-8", remedy="rename the file")
    errors.raise_if_any()


def _is_cycle(folder: Path, root: Path) -> bool:
    """Return whether a folder is a link to one of the folders that contain it."""
    if not folder.is_symlink() or folder == root:
        return False
    real = folder.resolve()
    return any(parent.resolve() == real for parent in folder.parents if parent == root or root in parent.parents)


def match_suffix(name: str, suffixes: Sequence[str]) -> tuple[str, str] | None:
    """Divide a file name into stem and suffix, in any letter case and with or without ``.gz``.

    Args:
        name: The file's name.
        suffixes: The suffixes in lower case.

    Returns:
        The stem as written and the longest suffix that matches; None if there is none.
    """
    plain = name[: -len(GZIP_SUFFIX)] if name.casefold().endswith(GZIP_SUFFIX) else name
    for suffix in sorted(suffixes, key=len, reverse=True):
        if plain.casefold().endswith(suffix.casefold()) and len(plain) > len(suffix):
            return plain[: -len(suffix)], suffix
    return None


class _OffsetReader(io.RawIOBase):
    """The bytes of a file after its byte order mark; position 0 is the first byte after it."""

    def __init__(self, source: IO[bytes], offset: int) -> None:
        self._source = source
        self._offset = offset
        source.seek(offset)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._source.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def seek(self, position: int, origin: int = io.SEEK_SET) -> int:
        moved = position + self._offset if origin == io.SEEK_SET else position
        return self._source.seek(moved, origin) - self._offset

    def tell(self) -> int:
        return self._source.tell() - self._offset


@contextmanager
def open_binary(file: Path) -> Iterator[BinaryIO]:
    """Open a file, decompress it if its suffix is ``.gz``, and skip a byte order mark.

    Raises:
        InputError: If it cannot be read, is damaged, or is compressed without the suffix ``.gz``. Errors of
            reads within the context are converted too.
    """
    try:
        with file.open("rb") as raw, ExitStack() as stack:
            compressed = raw.read(2) == GZIP_MARK
            raw.seek(0)
            if compressed != file.name.casefold().endswith(GZIP_SUFFIX):
                _reject_compression(file, compressed)
            stream = cast(BinaryIO, stack.enter_context(gzip.open(raw))) if compressed else raw
            marked = stream.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK
            stream.seek(0)
            yield cast(BinaryIO, io.BufferedReader(_OffsetReader(stream, len(BYTE_ORDER_MARK)))) if marked else stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        remedy = "download or compress the file again"
        fail(str(file), "damaged or incomplete gzip data", allowed="a complete gzip file", remedy=remedy)
    except OSError as error:
        fail(str(file), f"cannot be read: {error.strerror}")


def _reject_compression(file: Path, compressed: bool) -> NoReturn:
    if compressed:
        remedy = f"decompress it, or rename it to {file.name}{GZIP_SUFFIX}"
        fail(str(file), "gzip data in a file without the suffix .gz", allowed="text, or gzip with .gz", remedy=remedy)
    fail(str(file), "not gzip data, although the suffix is .gz", allowed="gzip", remedy="compress or rename the file")


def decode_text(content: bytes, where: str, remark: str = "") -> str:
    """Decode UTF-8.

    Args:
        content: The bytes.
        where: File and line, for the message.
        remark: End of the message's place, such as ``of the line``.

    Raises:
        InputError: If the bytes are not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        found = f"broken UTF-8 at byte {error.start}{remark}"
        if content.startswith(UTF_16_MARKS):
            found += ", and a byte order mark of UTF-16"
        fail(where, found, allowed="UTF-8", remedy="convert the file, for example by iconv")


def read_lines(stream: BinaryIO, where: str) -> Iterator[str]:
    """Yield lines, split at line feeds only; a carriage return before a line feed is removed.

    Args:
        stream: The file.
        where: The file's name, for messages.

    Raises:
        InputError: If a line is too long or not UTF-8.
    """
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            fail(f"{where}:{number}", f"a line of more than {MAX_LINE_BYTES:,} bytes", allowed="shorter lines")
        yield decode_text(line, f"{where}:{number}", " of the line").removesuffix("\n").removesuffix("\r")


def read_text(file: Path) -> str:
    """Read a file as UTF-8 without a byte order mark; keep its line ends, since offsets count them.

    Raises:
        InputError: If it cannot be read or is not UTF-8.
    """
    with open_binary(file) as stream:
        content = stream.read()
    return decode_text(content, str(file))


def make_file_name(id_: str) -> str:
    """Convert a document's id to a relative path without suffix, which a reader converts back to the same id.

    Letters, blanks and punctuation are kept. Control characters and backslashes become ``_``, and so do slashes
    of ids that would point outside the folder, to a hidden file or to a folder that names a split.
    """
    name = re.sub(r"[\x00-\x1f\x7f\\\ud800-\udfff]", "_", id_)
    parts = name.split("/")
    if any(not part.strip() or is_litter(part) or find_split(part) for part in parts[:-1]) or not parts[-1].strip():
        parts = [name.replace("/", "_")]
    parts[-1] = parts[-1].lstrip(".") or "_"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return hashlib.sha256(id_.encode()).hexdigest()
    return "/".join(parts)


def make_file_names(ids: Iterable[str]) -> dict[str, str]:
    """Return the file name of each document without suffix, by id.

    Raises:
        InputError: If two documents have the same file name, for each such pair.
    """
    errors, written = ErrorList(), dict[str, str]()
    names = {}
    for id_ in ids:
        try:
            names[id_] = add_file_name(id_, written)
        except InputError as error:
            errors.extend(error.problems)
    errors.raise_if_any()
    return names


def add_file_name(id_: str, written: dict[str, str]) -> str:
    """Return the file name of a document and record it.

    Args:
        id_: The document's id.
        written: Maps the previous file names to the ids of their documents; updated in place.

    Raises:
        InputError: If another document has the same file name.
    """
    name = make_file_name(id_)
    if name in written:
        found = f"two documents have this file name, {show_id(id_)!r} and {show_id(written[name])!r}"
        fail(show_id(name), found, remedy="rename one, or write jsonl")
    written[name] = id_
    return name
