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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from clinie_core.errors import fail
from search.storage.home import LEDGER_VARIABLE, Home, hide_password

__all__ = ["LedgerUnavailable", "hold_study", "is_study_held", "open_storage"]

PATIENCE_SECONDS = 600.0
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 10
KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""Seconds, seconds, times: after a minute the server lets go of what a machine held that went without a word."""
LONGEST_LINE = 1 << 20
"""Bytes; a line holds one attribute or one value of a trial."""


class LedgerUnavailable(RuntimeError):
    """The ledger cannot be read or written; the message says where it is and what to do."""


def open_storage(home: Home) -> BaseStorage:
    """The ledger's storage.

    Raises:
        InputError: If its database does not answer.
    """
    if home.ledger is None:
        _end_torn_line(home)
        return JournalStorage(_Journal(str(home.ledger_file)))
    shown = hide_password(home.ledger)
    try:
        return _PatientStorage(home.ledger)
    except (ArgumentError, NoSuchModuleError):
        return fail(LEDGER_VARIABLE, f"{shown} is no database URL", allowed="such as postgresql://user@host/database")
    except ModuleNotFoundError as error:
        return fail(LEDGER_VARIABLE, f"no driver {error.name} for {shown}", remedy="pip install 'clinie[postgresql]'")
    except (DBAPIError, StorageInternalError):
        return fail(LEDGER_VARIABLE, f"the database does not answer at {shown}", allowed="the URL of one that runs")


class _Journal(JournalFileBackend):
    """A journal that says in one line that it could not be written."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append, in whole or not at all as far as a reader is concerned."""
        try:
            super().append_logs(logs)
        except OSError as error:
            found = f"the ledger {self._file_path} cannot be written: {error.strerror}"
            raise LedgerUnavailable(f"{found}; free some space and resume the study") from None


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
    """A database storage that waits for its database, and may hold a study against other searches of it."""

    def __init__(self, url: str) -> None:
        self.locks = url.startswith("postgresql")
        arguments = {"connect_timeout": CONNECT_SECONDS} if self.locks else {}
        super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": arguments})
        self.shown = hide_password(url)
        self._held: str | None = None
        self._holder: Connection | None = None

    def take(self, study: str) -> bool:
        """Take a study's lock, which goes with this storage's session; False if another session has it."""
        session = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for name, value in KEEPALIVE.items():
            session.execute(text(f"SET tcp_keepalives_{name} = {value}"))
        taken = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
        if not session.execute(taken, {"name": _lock_name(study)}).scalar_one():
            session.close()
            return False
        self._held, self._holder = study, session
        return True

    def is_taken(self, study: str) -> bool:
        """Whether some session has a study's lock."""
        key = "classid::bigint << 32 | objid::bigint"  # as pg_locks shows a lock of one 64-bit number
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        found = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND {here}"
        with self.engine.connect() as session:
            asked = text(f"{found} AND {key} = hashtextextended(:name, 0)")
            return bool(session.execute(asked, {"name": _lock_name(study)}).scalar_one())

    def release(self) -> None:
        """Let go of the lock."""
        if self._holder is not None:
            self._holder.invalidate()  # which ends its session, and with it the lock
            self._holder.close()
        self._held = self._holder = None

    def check_lock(self) -> None:
        """Make sure that the lock is still held; a server that was away has forgotten it.

        Raises:
            LedgerUnavailable: If another search has taken it meanwhile.
        """
        if self._held is None:
            return
        if self._holder is not None:
            try:
                self._holder.execute(text("SELECT 1"))
                return
            except (OperationalError, InterfaceError):
                self._holder.close()
                self._holder = None
        study = self._held
        if not self.take(study):
            self._held = None
            raise LedgerUnavailable(f"another search of {study!r} has begun while {self.shown} was away") from None


@contextmanager
def hold_study(storage: BaseStorage, study: str) -> Iterator[None]:
    """Hold a study against searches on other machines that keep their record in the same PostgreSQL database.

    Raises:
        InputError: If one is under way.
    """
    if not _locks(storage):
        yield
        return
    if not storage.take(study):
        remedy = "wait for it, or stop it where it runs"
        fail("study", f"a search of {study!r} is running, on another machine or in another home", remedy=remedy)
    try:
        yield
    finally:
        storage.release()


def is_study_held(storage: BaseStorage, study: str) -> bool:
    """Whether a search of a study is under way on any machine, as far as its database can tell."""
    return _locks(storage) and storage.is_taken(study)


def _locks(storage: BaseStorage) -> TypeGuard[_PatientStorage]:
    """Whether a storage can hold a study."""
    return isinstance(storage, _PatientStorage) and storage.locks


def _lock_name(study: str) -> str:
    return f"clinie/{study}"


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: _PatientStorage, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        checks = method.__name__ == "_create_new_trial"  # each draw, since an outage between two calls goes unseen
        while True:
            try:
                if checks:
                    self.check_lock()
                return method(self, *args, **kwargs)
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise
                if time.monotonic() > deadline:
                    raise LedgerUnavailable(
                        f"the ledger has not answered at {self.shown} for {PATIENCE_SECONDS / 60:.0f} minutes;"
                        " resume the study when it does"
                    ) from None
            checks = True
            _pause()

    return call


def _pause() -> None:
    time.sleep(PAUSE_SECONDS)


for _name, _method in list(vars(RDBStorage).items()):
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(_PatientStorage, _name, _patient(_method))
