"""Safe unpacking of corpora from zip and tar archives into a temporary folder."""

from __future__ import annotations

import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from clinie_core.data.corpora.files import is_litter
from clinie_core.errors import fail

__all__ = ["unpack"]

MAX_BYTES = 8 * 2**30
MAX_FILES = 1_000_000
MAX_RATIO = 200
"""Largest number of unpacked bytes per byte of the archive; text compresses about 4:1, a zip bomb 1000:1."""
MIN_BYTE_LIMIT = 64 * 2**20
"""Number of bytes allowed at any ratio, since small archives of repetitive text compress well."""


@contextmanager
def unpack(path: Path) -> Iterator[Path]:
    """Yield a folder with a corpus: the path itself, or a temporary folder if the path is an archive.

    Args:
        path: A folder, a file or an archive.

    Raises:
        InputError: If the archive is damaged, a member lies outside the folder or is a link, or the
            unpacked content is too large.
    """
    unpack = _unpack_zip if zipfile.is_zipfile(path) else _unpack_tar if path.is_file() and _is_tar(path) else None
    if unpack is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="clinie-") as folder:
        target = Path(folder)
        try:
            unpack(path, target)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            fail(str(path), f"the archive cannot be unpacked ({type(error).__name__})", allowed="a zip or tar file")
        inner = [path for path in target.iterdir() if not is_litter(path.name)]
        yield inner[0] if len(inner) == 1 and inner[0].is_dir() else target


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except OSError:
        return False


class _UnpackLimits:
    """Size limits of an archive's unpacked content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._most = min(MAX_BYTES, max(MIN_BYTE_LIMIT, MAX_RATIO * path.stat().st_size))
        self._bytes = 0
        self._files = 0

    def copy(self, source: IO[bytes], target: Path) -> None:
        """Write one member and count the bytes actually unpacked, since headers can be forged."""
        self._files += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            while block := source.read(2**20):
                self._bytes += len(block)
                if self._bytes > self._most or self._files > MAX_FILES:
                    found = f"unpacks to more than {self._most:,} bytes or {MAX_FILES:,} files"
                    fail(str(self._path), found, remedy="unpack it yourself if you trust it, and name the folder")
                stream.write(block)


def _resolve_member(path: Path, folder: Path, name: str) -> Path:
    """Return the path of a member in the folder; refuse names that point outside."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
        fail(str(path), "a member's name points outside the folder", remedy="do not trust this archive")
    return folder.joinpath(*parts)


def _unpack_zip(path: Path, folder: Path) -> None:
    budget = _UnpackLimits(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            target = _resolve_member(path, folder, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                fail(str(path), "a member is a link", allowed="files and folders")
            if not member.is_dir():
                with archive.open(member) as source:
                    budget.copy(source, target)


def _unpack_tar(path: Path, folder: Path) -> None:
    budget = _UnpackLimits(path)
    with tarfile.open(path) as archive:
        for member in archive:
            target = _resolve_member(path, folder, member.name)
            if member.isdir():
                continue
            source = archive.extractfile(member) if member.isreg() else None
            if source is None:
                fail(str(path), "a member is a link or a device", allowed="files and folders")
            with source:
                budget.copy(source, target)
