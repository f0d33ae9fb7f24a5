"""Temporary folders within a home folder, which do not outlive a process that was killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["open_scratch_folder"]

SCRATCH = "scratch"
LOCK_SUFFIX = ".lock"


@contextmanager
def open_scratch_folder(home: Path) -> Iterator[Path]:
    """Create a temporary folder within a home folder, and remove it at the end.

    Folders that earlier processes left when they were killed are removed first. A process locks its folder, so that
    no other one removes it.

    Args:
        home: The home folder.

    Yields:
        The new, empty folder.
    """
    place = home / SCRATCH
    place.mkdir(parents=True, exist_ok=True)
    with (place / "all.lock").open("w", encoding="ascii") as everything:
        fcntl.flock(everything, fcntl.LOCK_EX)
        _remove_abandoned(place)
        folder = Path(tempfile.mkdtemp(dir=place))
        lock = folder.with_name(folder.name + LOCK_SUFFIX).open("w", encoding="ascii")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def _remove_abandoned(place: Path) -> None:
    """Remove the folders whose lock is free."""
    for folder in [path for path in place.iterdir() if path.is_dir()]:
        file = folder.with_name(folder.name + LOCK_SUFFIX)
        with file.open("a", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process is running
                continue
            shutil.rmtree(folder, ignore_errors=True)
            file.unlink(missing_ok=True)
