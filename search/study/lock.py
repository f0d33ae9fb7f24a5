"""Who searches a study: a lock that the driver holds, so that nobody else writes the study.

In its home it is a file with the driver's pid; where the ledger is a PostgreSQL database that several machines may
use, a lock of that database stands beside it.
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

__all__ = ["hold_lock", "is_running", "request_stop"]


def _file(home: Home, study: str) -> Path:
    return home.study_folder(study) / "lock"


@contextmanager
def hold_lock(home: Home, study: str, storage: BaseStorage) -> Iterator[None]:
    """Hold a study's lock, so that two searches do not write one study.

    Args:
        home: Where the search runs.
        study: The study's name.
        storage: Its ledger's.

    Raises:
        InputError: If somebody holds it.
    """
    _file(home, study).parent.mkdir(parents=True, exist_ok=True)
    with _file(home, study).open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            remedy = f"wait for it, or stop it: clinie stop {study}"
            fail("study", f"a search of {study!r} is running in this home", remedy=remedy)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        with hold_study(storage, study):
            yield
        lock.truncate(0)


def is_running(home: Home, study: str, storage: BaseStorage) -> bool:
    """Whether a search of the study is under way in this home or, as far as a ledger can tell, on another machine."""
    return _is_locked(home, study) or is_study_held(storage, study)


def _is_locked(home: Home, study: str) -> bool:
    file = _file(home, study)
    if not file.exists():
        return False
    with file.open("r+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def request_stop(home: Home, study: str) -> int:
    """Ask the search of a study to end its trials in order.

    Returns:
        The pid of its driver.

    Raises:
        InputError: If no search of it is running on this machine.
    """
    if not _is_locked(home, study):
        fail(
            "study",
            f"no search of {study!r} is running in {home.root} on this machine",
            allowed="one that `clinie status` shows",
        )
    pid = int(_file(home, study).read_text(encoding="ascii"))
    os.kill(pid, signal.SIGTERM)
    return pid
