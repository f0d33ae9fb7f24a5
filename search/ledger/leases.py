"""Leases on the trials of a study that several drivers share, in the tables of a PostgreSQL ledger.

A driver has one row, which it renews at regular intervals, and one lease for each of its trials. Only the driver that
holds a trial's lease trains it. A driver is dead if it has not renewed its row for its lease time by the clock of the
database, or if its process on this machine has ended. Another driver then removes its row and its leases.

Optuna's heartbeat is not used: it has no owner, and it fails the trial of a dead process instead of continuing it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    select,
    text,
)
from sqlalchemy import insert as insert_row
from sqlalchemy import update as update_row
from sqlalchemy.exc import InterfaceError, OperationalError

from clinie_core.errors import fail
from search.ledger.database import DatabaseStorage, retry_in_outage
from search.ledger.driver import Driver, LeaseLost, get_driver, is_process_gone

__all__ = ["StudyLeases", "find_live_drivers"]

Result = TypeVar("Result")
LEASE_VARIABLE = "CLINIE_LEASE_SECONDS"
LEASE_SECONDS = 60.0
RENEWALS = 6
"""Number of renewals within the lease time."""
LONGEST_SECTION = "120s"
"""Time after which the database ends the session of a driver that stopped within an exclusive section."""

_TABLES = MetaData()
_DRIVERS = Table(
    "clinie_drivers",
    _TABLES,
    Column("study", String, primary_key=True),
    Column("driver", String, primary_key=True),
    Column("machine", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Float, nullable=False),
    Column("lease_seconds", Float, nullable=False),
    Column("renewed", DateTime(timezone=True), nullable=False),
    Column("is_closing", Integer, nullable=False, default=0),
)
_LEASES = Table(
    "clinie_leases",
    _TABLES,
    Column("study", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("driver", String, nullable=False),
)


def read_lease_seconds() -> float:
    """Return the lease time of ``CLINIE_LEASE_SECONDS``, or 60 seconds.

    Raises:
        InputError: If the variable is not a number of at least 1.
    """
    value = os.environ.get(LEASE_VARIABLE, "")
    try:
        seconds = float(value) if value else LEASE_SECONDS
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86_400:
        fail(LEASE_VARIABLE, f"found {value!r}", allowed="seconds from 1 to 86400")
    return seconds


def find_live_drivers(storage: DatabaseStorage, study: str) -> list[str]:
    """Return the names of the drivers that search a study now."""

    def read() -> list[str]:
        with storage.engine.connect() as connection:
            if connection.execute(select(func.to_regclass(_DRIVERS.name))).scalar() is None:
                return []  # no driver has ever used this database
            return sorted(row.name for row in _read_drivers(connection, study) if not row.is_dead)

    return retry_in_outage(storage, read)


class StudyLeases:
    """The leases of one driver of a study.

    Args:
        storage: The PostgreSQL ledger.
        study: Name of the study.
        driver: Identity of the driver.
        seconds: Lease time; None for that of :func:`read_lease_seconds`.
    """

    def __init__(
        self, storage: DatabaseStorage, study: str, driver: Driver | None = None, seconds: float | None = None
    ) -> None:
        self._storage = storage
        self._study = study
        self._driver = driver or get_driver()
        self.seconds = seconds or read_lease_seconds()
        self._section: Connection | None = None
        self._renewed = self._steady_since = _read_clock()
        self._lost = False
        self._end = threading.Event()

    @property
    def name(self) -> str:
        """Name of this driver."""
        return self._driver.name

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Take part in the study within this context, and renew the leases in a thread."""
        self.join()
        renewal = threading.Thread(target=self._renew_until_end, name="clinie-leases", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            self._end.set()
            renewal.join()
            self.leave()

    def join(self) -> None:
        """Add this driver to the study, after a driver that is closing it has ended."""

        def create() -> None:
            with self._storage.engine.begin() as connection:
                _lock(connection, "tables")
                _TABLES.create_all(connection)

        retry_in_outage(self._storage, create)
        while not self.run_exclusively(self._try_to_join):
            self._note_renewal(_read_clock())
            time.sleep(min(0.5, self.seconds / RENEWALS))
        self._renewed = self._steady_since = _read_clock()

    def _try_to_join(self) -> bool:
        connection = self._get_section()
        self._remove_dead(connection)
        closing = select(_DRIVERS.c.driver).where(_DRIVERS.c.study == self._study, _DRIVERS.c.is_closing == 1)
        if connection.execute(closing).first() is not None:
            # Its row does not disappear if it is a stopped process on another machine, until its lease time is over.
            return False
        connection.execute(
            delete(_DRIVERS).where(_DRIVERS.c.study == self._study, _DRIVERS.c.driver == self.name)
        )  # of an attempt whose answer was lost
        connection.execute(
            insert_row(_DRIVERS).values(
                study=self._study,
                driver=self.name,
                machine=self._driver.machine,
                pid=self._driver.pid,
                process_started=self._driver.started,
                lease_seconds=self.seconds,
                renewed=func.clock_timestamp(),
                is_closing=0,
            )
        )
        return True

    def leave(self) -> None:
        """Release all leases of this driver and remove it from the study."""
        self.run_exclusively(lambda: self._remove(self._get_section(), self.name))

    def begin_closing(self) -> bool:
        """Return whether this is the last driver; no other one can join then before it has left."""

        def close() -> bool:
            connection = self._get_section()
            if self._find_others(connection):
                return False
            own = (_DRIVERS.c.study == self._study, _DRIVERS.c.driver == self.name)
            connection.execute(update_row(_DRIVERS).where(*own).values(is_closing=1))
            return True

        return self.run_exclusively(close)

    def has_others(self) -> bool:
        """Return whether other drivers search the study."""
        return bool(self.run_exclusively(lambda: self._find_others(self._get_section())))

    def _find_others(self, connection: Connection) -> list[str]:
        self._remove_dead(connection)
        names = select(_DRIVERS.c.driver).where(_DRIVERS.c.study == self._study, _DRIVERS.c.driver != self.name)
        return list(connection.scalars(names))

    def run_exclusively(self, section: Callable[[], Result]) -> Result:
        """Run a function while no other driver of the study runs one.

        The function is repeated if the connection to the database is lost meanwhile, so that it must be repeatable.
        """
        if self._section is not None:
            return section()

        def run() -> Result:
            try:
                with self._storage.engine.begin() as connection:
                    limit = text(f"SET LOCAL idle_in_transaction_session_timeout = '{LONGEST_SECTION}'")
                    connection.execute(limit)
                    _lock(connection, self._study)
                    self._section = connection
                    return section()
            finally:
                self._section = None

        return retry_in_outage(self._storage, run)

    def _get_section(self) -> Connection:
        assert self._section is not None, "this is a part of an exclusive section"
        return self._section

    def read(self) -> dict[int, str]:
        """Return the driver of each leased trial, by number of the trial; a dead driver's leases are removed first."""
        leases = select(_LEASES.c.number, _LEASES.c.driver).where(_LEASES.c.study == self._study)

        def find() -> dict[int, str]:
            with nullcontext(self._section) if self._section else self._storage.engine.begin() as connection:
                self._remove_dead(connection)
                return {row.number: row.driver for row in connection.execute(leases)}

        return find() if self._section else retry_in_outage(self._storage, find)

    def claim(self, number: int) -> bool:
        """Take the lease of a trial.

        Returns:
            False if another driver holds it.

        Raises:
            LeaseLost: If this driver was declared dead.
        """

        def take() -> bool:
            connection = self._get_section()
            self._remove_dead(connection)
            own = select(_DRIVERS.c.driver).where(_DRIVERS.c.study == self._study, _DRIVERS.c.driver == self.name)
            if connection.execute(own.with_for_update()).first() is None:
                self._lost = True
            self._require_leases()
            held = select(_LEASES.c.driver).where(_LEASES.c.study == self._study, _LEASES.c.number == number)
            holder = connection.execute(held).scalar()
            if holder is None:
                connection.execute(insert_row(_LEASES).values(study=self._study, number=number, driver=self.name))
            return holder in (None, self.name)

        return self.run_exclusively(take)

    def release(self, number: int) -> None:
        """Release the lease of a trial that has ended."""
        own = (_LEASES.c.study == self._study, _LEASES.c.number == number, _LEASES.c.driver == self.name)

        def give() -> None:
            with self._storage.engine.begin() as connection:
                connection.execute(delete(_LEASES).where(*own))

        retry_in_outage(self._storage, give)

    def find_own(self) -> list[int]:
        """Return the numbers of the trials whose lease this driver holds."""
        return sorted(number for number, driver in self.read().items() if driver == self.name)

    def check(self) -> None:
        """Check before a write to the ledger that the leases are valid.

        Raises:
            LeaseLost: If another driver has removed this one, such as after a long stop of this process.
        """
        if not self._lost and _read_clock() - self._renewed > self.seconds:
            retry_in_outage(self._storage, self.renew)
        self._require_leases()

    def _require_leases(self) -> None:
        if self._lost:
            raise LeaseLost(
                f"driver {self.name} has not renewed its leases for {self.seconds:g} seconds, and other drivers of"
                f" {self._study!r} have taken up its trials; join them with: clinie resume {self._study}"
            )

    def renew(self) -> None:
        """Renew the leases of this driver, unless another one has removed it."""
        before = _read_clock()  # before the database's time, so that this driver's leases end early, never late
        own = (_DRIVERS.c.study == self._study, _DRIVERS.c.driver == self.name)
        with self._storage.engine.begin() as connection:
            renewed = connection.execute(update_row(_DRIVERS).where(*own).values(renewed=func.clock_timestamp()))
        if renewed.rowcount == 0:
            self._lost = True
            return
        self._note_renewal(before)

    def _note_renewal(self, at: float) -> None:
        if at - self._renewed > self.seconds / 2:  # the other drivers had the same outage
            self._steady_since = at
        self._renewed = at

    def _renew_until_end(self) -> None:
        while not self._end.wait(self.seconds / RENEWALS) and not self._lost:
            try:
                self.renew()
            except (OperationalError, InterfaceError):
                continue  # the database is unavailable; the next write to the ledger waits for it

    def _remove_dead(self, connection: Connection) -> None:
        """Remove drivers that are dead.

        A driver that could not renew its own leases lately does not judge the others by the time, because an outage
        of the database stops the renewals of all drivers.
        """
        now = _read_clock()
        may_judge = now - self._steady_since >= self.seconds and now - self._renewed <= self.seconds / 2
        for row in _read_drivers(connection, self._study, by_time=may_judge):
            if row.is_dead and row.name != self.name:
                self._remove(connection, row.name, _DRIVERS.c.renewed == row.renewed)

    def _remove(self, connection: Connection, driver: str, *conditions: ColumnElement[bool]) -> None:
        """Remove a driver and its leases, if the driver's row satisfies some conditions."""
        row = delete(_DRIVERS).where(_DRIVERS.c.study == self._study, _DRIVERS.c.driver == driver, *conditions)
        if connection.execute(row).rowcount:
            connection.execute(delete(_LEASES).where(_LEASES.c.study == self._study, _LEASES.c.driver == driver))


@dataclass(frozen=True)
class _DriverRow:
    """A driver of a study, when it has renewed its leases, and whether it is dead."""

    name: str
    renewed: datetime
    is_dead: bool


def _read_drivers(connection: Connection, study: str, *, by_time: bool = True) -> list[_DriverRow]:
    """Return the drivers of a study.

    Args:
        connection: A connection to the database.
        study: Name of the study.
        by_time: Whether a driver that has not renewed its leases in time is dead.
    """
    age = func.extract("epoch", func.clock_timestamp() - _DRIVERS.c.renewed)
    rows = connection.execute(
        select(_DRIVERS, (age > _DRIVERS.c.lease_seconds).label("is_late")).where(_DRIVERS.c.study == study)
    )
    return [
        _DriverRow(
            row.driver,
            row.renewed,
            (by_time and row.is_late) or is_process_gone(row.machine, row.pid, row.process_started),
        )
        for row in rows
    ]


def _lock(connection: Connection, name: str) -> None:
    """Wait for a lock that the end of the transaction releases."""
    query = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(query, {"name": f"clinie-drivers/{name}"})


def _read_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike CLOCK_MONOTONIC, it includes the sleep of a laptop
