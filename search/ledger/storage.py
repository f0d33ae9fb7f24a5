"""The ledger's storage: a journal file in the home folder, or a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.storages import BaseStorage, JournalStorage

from search.ledger.journal import LedgerUnavailable, open_journal
from search.storage.home import Home

if TYPE_CHECKING:
    from search.ledger.leases import LeaseStorage

__all__ = ["LedgerUnavailable", "get_lease_storage", "open_storage"]


def open_storage(home: Home) -> BaseStorage:
    """Open the storage of a home folder's ledger.

    Args:
        home: The home folder; its ``ledger`` is a database URL, that of a proxy (``grpc://HOST:PORT``), or None for the
            journal file.

    Raises:
        InputError: If the URL is malformed, its driver is not installed, the database does not answer, or the journal
            file is damaged or cannot be opened.
    """
    if home.ledger is None:
        return JournalStorage(open_journal(home.ledger_file))
    if home.ledger.startswith("grpc://"):
        from search.ledger.proxy import open_proxy

        return open_proxy(home.ledger)
    from search.ledger.database import open_database  # sqlalchemy takes 0.2 s to import

    return open_database(home.ledger)


def get_lease_storage(storage: BaseStorage) -> LeaseStorage | None:
    """Return the storage if several drivers may search one study in it: PostgreSQL, or the proxy of one."""
    if isinstance(storage, JournalStorage):
        return None
    from search.ledger.database import DatabaseStorage

    if isinstance(storage, DatabaseStorage):
        return storage if storage.has_leases else None
    from search.ledger.proxy import ProxyStorage

    return storage if isinstance(storage, ProxyStorage) and storage.has_leases else None
