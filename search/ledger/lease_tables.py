"""Tables of a PostgreSQL ledger with the drivers of each study and the leases on its trials.

A driver has a row, which it renews, and a row for each lease. All times are those of the database's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
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

from search.ledger.driver import is_process_gone

__all__ = ["LeaseSection", "open_section"]

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


class LeaseSection:
    """Operations on the drivers and leases of a study, in one transaction.

    The arguments and results are JSON values, so that a proxy can pass them on.

    Args:
        connection: A connection with an open transaction.
        study: Name of the study.
    """

    def __init__(self, connection: Connection, study: str) -> None:
        self._connection = connection
        self._study = study

    def create_tables(self) -> None:
        """Create the tables unless they exist."""
        _lock(self._connection, "tables")
        _TABLES.create_all(self._connection)

    def list_live(self) -> list[str]:
        """Return the names of the drivers that search the study now."""
        if self._connection.execute(select(func.to_regclass(_DRIVERS.name))).scalar() is None:
            return []  # no driver has ever used this database
        return sorted(row.name for row in self._read_drivers() if not row.is_dead)

    def join(self, name: str, machine: str, pid: int, started: float, seconds: float) -> bool:
        """Add a driver, and return False if another one is closing the study.

        Args:
            name: Name of the driver.
            machine: Identifies the boot of its machine and its process namespace.
            pid: Its process id.
            started: Start of the process, in a unit of its machine.
            seconds: Its lease time.
        """
        closing = select(_DRIVERS.c.driver).where(_DRIVERS.c.study == self._study, _DRIVERS.c.is_closing == 1)
        if self._connection.execute(closing).first() is not None:
            # Its row does not disappear if it is a stopped process on another machine, until its lease time is over.
            return False
        self._connection.execute(delete(_DRIVERS).where(*self._match(name)))  # of an attempt whose answer was lost
        self._connection.execute(
            insert_row(_DRIVERS).values(
                study=self._study,
                driver=name,
                machine=machine,
                pid=pid,
                process_started=started,
                lease_seconds=seconds,
                renewed=func.clock_timestamp(),
                is_closing=0,
            )
        )
        return True

    def list_others(self, name: str) -> list[str]:
        """Return the names of the other drivers."""
        names = select(_DRIVERS.c.driver).where(_DRIVERS.c.study == self._study, _DRIVERS.c.driver != name)
        return list(self._connection.scalars(names))

    def mark_closing(self, name: str) -> None:
        """Let no other driver join before this one has left."""
        self._connection.execute(update_row(_DRIVERS).where(*self._match(name)).values(is_closing=1))

    def read(self) -> list[tuple[int, str]]:
        """Return the number and the driver of each leased trial."""
        leases = select(_LEASES.c.number, _LEASES.c.driver).where(_LEASES.c.study == self._study)
        return [(row.number, row.driver) for row in self._connection.execute(leases)]

    def claim(self, name: str, number: int) -> str | None:
        """Lease a trial to a driver unless it is leased.

        Returns:
            The driver that holds the lease now; None if the given driver was removed from the study.
        """
        own = select(_DRIVERS.c.driver).where(*self._match(name)).with_for_update()
        if self._connection.execute(own).first() is None:
            return None
        held = select(_LEASES.c.driver).where(_LEASES.c.study == self._study, _LEASES.c.number == number)
        holder = self._connection.execute(held).scalar()
        if holder is None:
            self._connection.execute(insert_row(_LEASES).values(study=self._study, number=number, driver=name))
        return name if holder is None else str(holder)

    def release(self, name: str, number: int) -> None:
        """Release a lease of a driver; no-op if it does not hold it."""
        own = (_LEASES.c.study == self._study, _LEASES.c.number == number, _LEASES.c.driver == name)
        self._connection.execute(delete(_LEASES).where(*own))

    def renew(self, name: str) -> bool:
        """Renew the leases of a driver, and return False if it was removed from the study."""
        row = update_row(_DRIVERS).where(*self._match(name)).values(renewed=func.clock_timestamp())
        return self._connection.execute(row).rowcount > 0

    def remove(self, name: str) -> None:
        """Remove a driver and its leases."""
        self._remove(name)

    def remove_dead(self, name: str, by_time: bool) -> None:
        """Remove the other drivers that are dead.

        Args:
            name: Name of this driver.
            by_time: Whether a driver that has not renewed its leases in time is dead.
        """
        for row in self._read_drivers(by_time=by_time):
            if row.is_dead and row.name != name:
                self._remove(row.name, _DRIVERS.c.renewed == row.renewed)

    def _remove(self, name: str, *conditions: ColumnElement[bool]) -> None:
        """Remove a driver and its leases, if the driver's row satisfies some conditions."""
        if self._connection.execute(delete(_DRIVERS).where(*self._match(name), *conditions)).rowcount:
            leases = delete(_LEASES).where(_LEASES.c.study == self._study, _LEASES.c.driver == name)
            self._connection.execute(leases)

    def _match(self, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return _DRIVERS.c.study == self._study, _DRIVERS.c.driver == name

    def _read_drivers(self, *, by_time: bool = True) -> list[_DriverRow]:
        age = func.extract("epoch", func.clock_timestamp() - _DRIVERS.c.renewed)
        is_late = (age > _DRIVERS.c.lease_seconds).label("is_late")
        rows = self._connection.execute(select(_DRIVERS, is_late).where(_DRIVERS.c.study == self._study))
        return [
            _DriverRow(
                row.driver,
                row.renewed,
                (by_time and row.is_late) or is_process_gone(row.machine, row.pid, row.process_started),
            )
            for row in rows
        ]


@dataclass(frozen=True)
class _DriverRow:
    """A driver of a study, when it has renewed its leases, and whether it is dead."""

    name: str
    renewed: datetime
    is_dead: bool


@contextmanager
def open_section(engine: Engine, study: str, *, exclusive: bool) -> Iterator[LeaseSection]:
    """Open a transaction on the leases of a study.

    Args:
        engine: Engine of the database.
        study: Name of the study.
        exclusive: Whether no other driver is in an exclusive section of the study at the same time.
    """
    with engine.begin() as connection:
        if exclusive:
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{LONGEST_SECTION}'"))
            _lock(connection, study)
        yield LeaseSection(connection, study)


def _lock(connection: Connection, name: str) -> None:
    """Wait for a lock that the end of the transaction releases."""
    query = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(query, {"name": f"clinie-drivers/{name}"})
