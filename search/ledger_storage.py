"""Where the ledger is kept: a journal file in the home folder, or a database by its URL.

A database that goes away is waited for: a search without its record cannot go on, and its workers would have to
begin again. Every call of the storage is tried again for :data:`PATIENCE_SECONDS`; what a call writes is the same
the second time, but for a new trial, of which a lost answer leaves one that the next draw takes up.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from clinie_core.errors import fail
from search.settings import LEDGER_VARIABLE, Home, without_password

__all__ = ["LedgerAway", "open_storage"]

PATIENCE_SECONDS = 600.0
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 10
LONGEST_LINE = 1 << 20
"""Bytes; a line holds one attribute or one value of a trial."""


class LedgerAway(RuntimeError):
    """The ledger cannot be read or written; the message says where it is and what to do."""


def open_storage(home: Home) -> BaseStorage:
    """The ledger's storage.

    Raises:
        InputError: If its database does not answer.
    """
    if home.ledger is None:
        _end_torn_line(home)
        return JournalStorage(_Journal(str(home.ledger_file)))
    shown = without_password(home.ledger)
    try:
        return _PatientStorage(home.ledger)
    except (ArgumentError, NoSuchModuleError):
        return fail(LEDGER_VARIABLE, f"{shown} is no database URL", "such as postgresql://user@host/database")
    except ModuleNotFoundError as error:
        return fail(LEDGER_VARIABLE, f"no driver {error.name} for {shown}", "", "pip install 'clinie[postgresql]'")
    except (DBAPIError, StorageInternalError):
        return fail(LEDGER_VARIABLE, f"the database does not answer at {shown}", "the URL of one that runs")


class _Journal(JournalFileBackend):
    """A journal that says in one line that it could not be written."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append, in whole or not at all as far as a reader is concerned."""
        try:
            super().append_logs(logs)
        except OSError as error:
            found = f"the ledger {self._file_path} cannot be written: {error.strerror}"
            raise LedgerAway(f"{found}; free some space and resume the study") from None


def _end_torn_line(home: Home) -> None:
    """Cut off a line that a full disk or a crash left unfinished: nobody was told that it was written."""
    if not home.ledger_file.is_file() or _end_of_lines(home.ledger_file) is None:
        return
    with get_lock_file(JournalFileSymlinkLock(str(home.ledger_file))):  # it may be a line that is being written
        end = _end_of_lines(home.ledger_file)
        if end is not None:
            os.truncate(home.ledger_file, end)


def _end_of_lines(file: Path) -> int | None:
    """Where the last whole line of a file ends, in bytes; None if that is the file's end."""
    with file.open("rb") as journal:
        size = journal.seek(0, os.SEEK_END)
        tail = min(size, LONGEST_LINE)
        journal.seek(size - tail)
        content = journal.read(tail)
    return None if not content or content.endswith(b"\n") else size - tail + content.rfind(b"\n") + 1


class _PatientStorage(RDBStorage):
    """A database storage that waits for its database."""

    def __init__(self, url: str) -> None:
        arguments = {"connect_timeout": CONNECT_SECONDS} if url.startswith("postgresql") else {}
        super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": arguments})
        self._shown = without_password(url)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: _PatientStorage, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return method(self, *args, **kwargs)
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise
                if time.monotonic() > deadline:
                    raise LedgerAway(
                        f"the ledger has not answered at {self._shown} for {PATIENCE_SECONDS / 60:.0f} minutes;"
                        " resume the study when it does"
                    ) from None
            time.sleep(PAUSE_SECONDS)

    return call


for _name, _method in list(vars(RDBStorage).items()):
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(_PatientStorage, _name, _patient(_method))
