"""Output files of commands: existing files are never overwritten by accident, and no file is left incomplete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clinie_core.errors import ErrorList, fail

__all__ = ["check_output_files", "require_empty_folder", "stage_folder", "write_output"]

REMEDY = "remove it, name another, or pass --overwrite"


def check_output_files(*files: Path, overwrite: bool) -> None:
    """Check that files can be written without overwriting existing ones.

    Args:
        files: The files to be written.
        overwrite: Allow files that exist.

    Raises:
        InputError: With one problem for each file that exists, or that is a folder.
    """
    errors = ErrorList()
    for file in files:
        if file.is_dir():
            errors.add(str(file), "is a folder", allowed="the name of a file")
        elif not overwrite and os.path.lexists(file) and not _is_device(file):
            errors.add(str(file), "the file exists already", allowed="a new file", remedy=REMEDY)
    errors.raise_if_any()


def require_empty_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Check that a folder is new or empty, so that nothing is overwritten.

    Args:
        folder: The folder to be written.
        overwrite: Allow a folder that is not empty.

    Raises:
        InputError: If the folder exists and is not empty, or is a file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        fail(str(folder), "exists and is not a folder", allowed="a new or empty folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        fail(str(folder), "exists and is not empty", allowed="a new or empty folder", remedy=REMEDY)


def write_output(file: Path, text: str) -> None:
    """Write a text file completely or not at all; an existing file is replaced.

    Args:
        file: The file, or a pipe or device such as ``/dev/stdout``; missing parent folders are created.
        text: Its content, written as UTF-8 with the given line ends.

    Raises:
        InputError: If the file cannot be written.
    """
    with _convert_os_errors(file):
        if _is_device(file):
            file.write_text(text, encoding="utf-8", newline="")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with _make_staging_folder(file.parent) as staging:
            part = staging / "part"
            part.write_text(text, encoding="utf-8", newline="")
            part.replace(file)


@contextmanager
def stage_folder(folder: Path) -> Iterator[Path]:
    """Collect files in a temporary folder and move them to a folder when the context ends without an exception.

    An exception leaves the folder as it was. Files of the same name are replaced; check before with
    :func:`require_empty_folder`.

    Args:
        folder: The target folder; it and its parent folders are created if they are missing.

    Yields:
        The temporary folder.

    Raises:
        InputError: If the folder cannot be written.
    """
    with _convert_os_errors(folder):
        new = not folder.exists()
        place = folder.parent if new else folder  # a rename works only within one file system
        place.mkdir(parents=True, exist_ok=True)
        with _make_staging_folder(place) as staging:
            part = staging / "part"
            part.mkdir()
            yield part
            if new:
                part.rename(folder)
                return
            files = {f: folder / f.relative_to(part) for f in sorted(part.rglob("*")) if not f.is_dir()}
            _check_targets(files.values(), folder)
            for file, target in files.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


def _check_targets(targets: Iterable[Path], folder: Path) -> None:
    """Check that files can be moved to their targets before the first one is moved.

    Raises:
        InputError: With one problem for each target that is a folder, or that is below a file.
    """
    errors = ErrorList()
    for target in targets:
        parents = target.parents[: len(target.relative_to(folder).parts) - 1]
        blocking = next((parent for parent in parents if os.path.lexists(parent) and not parent.is_dir()), None)
        if target.is_dir():
            errors.add(str(target), "is a folder", allowed="the name of a file", remedy="remove it or name another")
        elif blocking is not None:
            errors.add(str(blocking), "is not a folder", allowed="a folder", remedy="remove it or name another")
    errors.raise_if_any()


def _is_device(file: Path) -> bool:
    """Return whether writing to an existing path replaces nothing, because it is a pipe or device."""
    return file.exists() and not file.is_file() and not file.is_dir()


@contextmanager
def _make_staging_folder(place: Path) -> Iterator[Path]:
    staging = Path(tempfile.mkdtemp(prefix=".clinie-", dir=place))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _convert_os_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fail(str(place), f"cannot be written: {error.strerror}", allowed="a writable place")
