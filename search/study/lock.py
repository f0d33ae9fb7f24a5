"""The drivers of a study.

One driver at a time searches a study in a home folder; a locked file holds its pid. Drivers with other home folders, on
this or on other machines, may take part if the ledger is a PostgreSQL database; see :mod:`search.ledger.leases`.
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
from search.ledger.storage import get_lease_storage
from search.storage.home import Home

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from search.ledger.leases import StudyLeases

__all__ = ["find_drivers", "find_running_studies", "hold_study", "is_running", "request_stop"]


def _lock_file(home: Home, study: str) -> Path:
    return home.study_folder(study) / "lock"


@contextmanager
def hold_study(home: Home, study: str, storage: BaseStorage) -> Iterator[StudyLeases | None]:
    """Be a driver of a study within this context.

    Args:
        home: Home folder of the search.
        study: Name of the study.
        storage: Storage of the ledger.

    Yields:
        The leases of this driver; None if the ledger permits one driver only.

    Raises:
        InputError: If another driver uses the home folder.
    """
    shared = get_lease_storage(storage)
    file = _lock_file(home, study)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = f"a search of {study!r} is running in this home"
            if shared is not None:
                fail("study", found, remedy="join it with another home folder: --home FOLDER")
            remedy = f"wait until it ends, or stop it: clinie stop {study}; several drivers need PostgreSQL"
            fail("study", f"{found}; found a second driver on a journal ledger", remedy=remedy)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        if shared is None:
            yield None
        else:
            from search.ledger.leases import StudyLeases

            leases = StudyLeases(shared, study)
            with leases.hold():
                yield leases
        lock.truncate(0)


def is_running(home: Home, study: str, storage: BaseStorage) -> bool:
    """Return whether a search of the study is running.

    A search on another machine is detected if the ledger is a PostgreSQL database.
    """
    return _is_locked(home, study) or bool(find_drivers(study, storage))


def find_drivers(study: str, storage: BaseStorage) -> list[str]:
    """Return the names of the drivers that search a study; empty unless the ledger is PostgreSQL."""
    shared = get_lease_storage(storage)
    if shared is None:
        return []
    from search.ledger.leases import find_live_drivers

    return find_live_drivers(shared, study)


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
