"""The lock of a study: one driver at a time writes a study.

In the home folder it is a locked file that holds the driver's pid. Several machines may share a PostgreSQL ledger;
there, an advisory lock of the database is held as well.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clinie_core.errors import fail
from search.ledger.storage import hold_study, is_study_held
from search.storage.home import Home

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["find_running_studies", "hold_lock", "is_running", "request_stop"]


def _lock_file(home: Home, study: str) -> Path:
    return home.study_folder(study) / "lock"


@contextmanager
def hold_lock(home: Home, study: str, storage: BaseStorage) -> Iterator[None]:
    """Hold a study's lock within this context.

    Args:
        home: Home folder of the search.
        study: Name of the study.
        storage: Storage of the ledger.

    Raises:
        InputError: If another process holds the lock.
    """
    file = _lock_file(home, study)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = f"wait until it ends, or stop it: clinie stop {study}"
            fail("study", f"a search of {study!r} is running in this home", remedy=remedy)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        with hold_study(storage, study):
            yield
        lock.truncate(0)


def is_running(home: Home, study: str, storage: BaseStorage) -> bool:
    """Return whether a search of the study is running.

    A search on another machine is detected if the ledger is a PostgreSQL database.
    """
    return _is_locked(home, study) or is_study_held(storage, study)


def find_running_studies(home: Home) -> list[str]:
    """Return the sorted names of the studies whose search is running on this machine in a home folder."""
    names = sorted(file.parent.name for file in home.study_folder("any").parent.glob("*/lock"))
    return [name for name in names if _is_locked(home, name)]


def _is_locked(home: Home, study: str) -> bool:
    file = _lock_file(home, study)
    if not file.exists():
        return False
    with file.open("rb") as lock:  # not for writing, so that a home on a read-only disk can be examined
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def request_stop(home: Home, study: str) -> int:
    """Request a clean stop of a study's search by sending SIGTERM to its driver.

    Returns:
        Pid of the driver.

    Raises:
        InputError: If no search of the study is running on this machine.
    """
    if not _is_locked(home, study):
        fail(
            "study",
            f"no search of {study!r} is running in {home.root} on this machine",
            allowed="a study that `clinie status` shows as running",
        )
    pid = int(_lock_file(home, study).read_text(encoding="ascii"))
    os.kill(pid, signal.SIGTERM)
    return pid
