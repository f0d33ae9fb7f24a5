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
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from clinie_core.errors import fail
from search.ledger.journal import LedgerUnavailable
from search.ledger.lease_tables import LeaseSection, open_section
from search.storage.home import LEDGER_VARIABLE, hide_password
from search.storage.schema_lock import is_postgresql, lock_schema

__all__ = ["DatabaseStorage", "open_database", "retry_in_outage"]

Result = TypeVar("Result")

RETRY_SECONDS = 600.0
PAUSE_SECONDS = 1.0
CONNECT_SECONDS = 10
KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds and number of probes, after which a call of a lost server fails."""


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

    Several drivers may share a study if it is PostgreSQL; see :mod:`search.ledger.leases`.
    """

    def __init__(self, url: str) -> None:
        self.has_leases = is_postgresql(url)
        arguments = {"connect_timeout": CONNECT_SECONDS, **KEEPALIVE} if self.has_leases else {}
        with lock_schema(url):
            super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": arguments})
        self.shown = hide_password(url)

    def open_section(self, study: str, *, exclusive: bool) -> AbstractContextManager[LeaseSection]:
        """Open a transaction on the leases of a study; see :mod:`search.ledger.leases`."""
        return open_section(self.engine, study, exclusive=exclusive)

    def is_outage(self, error: BaseException) -> bool:
        """Return whether an error means that the database is unavailable."""
        return _is_outage(error)


class _ShownStorage(Protocol):
    shown: str


def retry_in_outage(
    storage: _ShownStorage, call: Callable[[], Result], is_outage: Callable[[BaseException], bool] | None = None
) -> Result:
    """Call a function, and repeat it while the database is unavailable.

    Args:
        storage: Storage of the database.
        call: The function. It may have had its effect although its answer was lost.
        is_outage: Returns whether an error means that it is unavailable; None for the errors of a database.

    Raises:
        LedgerUnavailable: If the database does not answer for :data:`RETRY_SECONDS`.
    """
    attempts = Retrying(
        retry=retry_if_exception(is_outage or _is_outage),
        stop=stop_after_delay(RETRY_SECONDS),
        wait=wait_fixed(PAUSE_SECONDS),
        sleep=_pause,
    )
    try:
        return attempts(call)
    except RetryError:
        raise LedgerUnavailable(
            f"the ledger at {storage.shown} has not answered for {RETRY_SECONDS / 60:.0f} minutes;"
            " resume the study when it does"
        ) from None


def _retry(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a storage so that it is retried while the database is unavailable."""

    @functools.wraps(method)
    def call(self: DatabaseStorage, *args: Any, **kwargs: Any) -> Any:
        return retry_in_outage(self, lambda: method(self, *args, **kwargs))

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
