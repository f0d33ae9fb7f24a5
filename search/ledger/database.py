"""The ledger in a database.

Calls of a database that is unavailable are retried for :data:`RETRY_SECONDS`, because a search cannot continue without
its ledger. A retried call writes the same values again. The exception is the creation of a trial: if the answer is
lost, the database has a trial without a complete draw, which the next draw uses.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from clinie_core.errors import fail
from search.ledger.journal import LedgerUnavailable
from search.storage.home import LEDGER_VARIABLE, hide_password

__all__ = ["DatabaseStorage", "open_database"]

RETRY_SECONDS = 600.0
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 10
KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""Seconds, seconds and number of probes: the server releases the locks of a lost machine after a minute."""


def open_database(url: str) -> DatabaseStorage:
    """Open the storage of a database.

    Args:
        url: URL of the database.

    Raises:
        InputError: If the URL is malformed, its driver is not installed, or the database does not answer.
    """
    shown = hide_password(url)
    try:
        return DatabaseStorage(url)
    except (ArgumentError, NoSuchModuleError):
        return fail(
            LEDGER_VARIABLE, f"{shown} is not a database URL", allowed="for example postgresql://user@host/database"
        )
    except ModuleNotFoundError as error:
        return fail(LEDGER_VARIABLE, f"no driver {error.name} for {shown}", remedy="pip install 'clinie[postgresql]'")
    except (DBAPIError, StorageInternalError):
        return fail(
            LEDGER_VARIABLE, f"the database does not answer at {shown}", allowed="the URL of a running database"
        )


class DatabaseStorage(RDBStorage):
    """A database storage that retries while its database is unavailable.

    On PostgreSQL it can also hold an advisory lock on a study.
    """

    def __init__(self, url: str) -> None:
        self.can_lock = url.startswith("postgresql")
        arguments = {"connect_timeout": CONNECT_SECONDS} if self.can_lock else {}
        super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": arguments})
        self.shown = hide_password(url)
        self._held: str | None = None
        self._holder: Connection | None = None

    def acquire(self, study: str) -> bool:
        """Acquire the lock of a study in a session of its own.

        Returns:
            Whether it was acquired; False if another session holds it.
        """
        session = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for name, value in KEEPALIVE.items():
            session.execute(text(f"SET tcp_keepalives_{name} = {value}"))
        query = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
        if not session.execute(query, {"name": _lock_name(study)}).scalar_one():
            session.close()
            return False
        self._held, self._holder = study, session
        return True

    def is_locked(self, study: str) -> bool:
        """Return whether a session holds the lock of a study."""
        key = "classid::bigint << 32 | objid::bigint"  # as pg_locks shows a lock of one 64-bit number
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        found = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND {here}"
        with self.engine.connect() as session:
            query = text(f"{found} AND {key} = hashtextextended(:name, 0)")
            return bool(session.execute(query, {"name": _lock_name(study)}).scalar_one())

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._holder is not None:
            self._holder.invalidate()  # ends the session and thereby releases the lock
            self._holder.close()
        self._held = self._holder = None

    def check_lock(self) -> None:
        """Acquire the lock again if the server has lost it in an outage.

        Raises:
            LedgerUnavailable: If another search has acquired it meanwhile.
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
        if not self.acquire(study):
            self._held = None
            raise LedgerUnavailable(f"another search of {study!r} started while {self.shown} was unavailable") from None


def _lock_name(study: str) -> str:
    return f"clinie/{study}"


def _retry(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a storage so that it is retried while the database is unavailable."""

    @functools.wraps(method)
    def call(self: DatabaseStorage, *args: Any, **kwargs: Any) -> Any:
        always_checks_lock = method.__name__ == "_create_new_trial"  # on each draw: no call may have noticed an outage
        attempts = Retrying(
            retry=retry_if_exception(_is_outage),
            stop=stop_after_delay(RETRY_SECONDS),
            wait=wait_fixed(PAUSE_SECONDS),
            sleep=_pause,
        )
        try:
            for attempt in attempts:
                with attempt:
                    if always_checks_lock or attempt.retry_state.attempt_number > 1:
                        self.check_lock()
                    return method(self, *args, **kwargs)
        except RetryError:
            raise LedgerUnavailable(
                f"the ledger at {self.shown} has not answered for {RETRY_SECONDS / 60:.0f} minutes;"
                " resume the study when it does"
            ) from None

    return call


def _is_outage(error: BaseException) -> bool:
    """Return whether an error means that the database is unavailable."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


for _name, _method in list(vars(RDBStorage).items()):
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(DatabaseStorage, _name, _retry(_method))
