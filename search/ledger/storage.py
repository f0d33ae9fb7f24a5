"""The ledger's storage: a journal file in the home folder, or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

from optuna.storages import BaseStorage, JournalStorage

from clinie_core.errors import fail
from search.ledger.journal import LedgerUnavailable, open_journal
from search.storage.home import Home

if TYPE_CHECKING:
    from search.ledger.database import DatabaseStorage

__all__ = ["LedgerUnavailable", "hold_study", "is_study_held", "open_storage"]


def open_storage(home: Home) -> BaseStorage:
    """Open the storage of a home folder's ledger.

    Args:
        home: The home folder; its ``ledger`` is a database URL, or None for the journal file.

    Raises:
        InputError: If the URL is malformed, its driver is not installed, the database does not answer, or the journal
            file is damaged or cannot be opened.
    """
    if home.ledger is None:
        return JournalStorage(open_journal(home.ledger_file))
    from search.ledger.database import open_database  # sqlalchemy takes 0.2 s to import

    return open_database(home.ledger)


@contextmanager
def hold_study(storage: BaseStorage, study: str) -> Iterator[None]:
    """Hold the lock of a study within this context, if the ledger is a PostgreSQL database.

    Args:
        storage: Storage of the ledger.
        study: Name of the study.

    Raises:
        InputError: If a search of the study is running on another machine or in another home folder.
    """
    if not _can_lock(storage):
        yield
        return
    if not storage.acquire(study):
        remedy = "wait until it ends, or stop it where it runs"
        fail("study", f"a search of {study!r} is running, on another machine or in another home", remedy=remedy)
    try:
        yield
    finally:
        storage.release()


def is_study_held(storage: BaseStorage, study: str) -> bool:
    """Return whether a search of a study is running on any machine; always False without PostgreSQL."""
    return _can_lock(storage) and storage.is_locked(study)


def _can_lock(storage: BaseStorage) -> TypeGuard[DatabaseStorage]:
    if isinstance(storage, JournalStorage):
        return False
    from search.ledger.database import DatabaseStorage

    return isinstance(storage, DatabaseStorage) and storage.can_lock
