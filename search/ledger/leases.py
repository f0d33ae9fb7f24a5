"""Leases on the trials of a study that several drivers share, in a PostgreSQL ledger or behind its proxy.

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
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from clinie_core.errors import fail
from search.ledger.database import retry_in_outage
from search.ledger.driver import Driver, LeaseLost, get_driver
from search.ledger.lease_tables import LeaseSection

__all__ = ["LeaseStorage", "StudyLeases", "find_live_drivers"]

Result = TypeVar("Result")
LEASE_VARIABLE = "CLINIE_LEASE_SECONDS"
LEASE_SECONDS = 60.0
RENEWALS = 6
"""Number of renewals within the lease time."""


class LeaseStorage(Protocol):
    """Storage of a ledger with leases: a PostgreSQL database, or the proxy of one."""

    shown: str

    def open_section(self, study: str, *, exclusive: bool) -> AbstractContextManager[LeaseSection]:
        """Open a transaction on the leases of a study."""

    def is_outage(self, error: BaseException) -> bool:
        """Return whether an error means that the storage is unavailable."""


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


def find_live_drivers(storage: LeaseStorage, study: str) -> list[str]:
    """Return the names of the drivers that search a study now."""

    def read() -> list[str]:
        with storage.open_section(study, exclusive=False) as section:
            return section.list_live()

    return retry_in_outage(storage, read, storage.is_outage)


class StudyLeases:
    """The leases of one driver of a study.

    Args:
        storage: The ledger.
        study: Name of the study.
        driver: Identity of the driver.
        seconds: Lease time; None for that of :func:`read_lease_seconds`.
    """

    def __init__(
        self, storage: LeaseStorage, study: str, driver: Driver | None = None, seconds: float | None = None
    ) -> None:
        self._storage = storage
        self._study = study
        self._driver = driver or get_driver()
        self.seconds = seconds or read_lease_seconds()
        self._section: LeaseSection | None = None
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
        self._call(lambda section: section.create_tables())
        while not self.run_exclusively(self._try_to_join):
            self._note_renewal(_read_clock())
            time.sleep(min(0.5, self.seconds / RENEWALS))
        self._renewed = self._steady_since = _read_clock()

    def _try_to_join(self) -> bool:
        section, own = self._get_section(), self._driver
        self._remove_dead(section)
        return section.join(own.name, own.machine, own.pid, own.started, self.seconds)

    def leave(self) -> None:
        """Release all leases of this driver and remove it from the study."""
        self.run_exclusively(lambda: self._get_section().remove(self.name))

    def begin_closing(self) -> bool:
        """Return whether this is the last driver; no other one can join then before it has left."""

        def close() -> bool:
            if self._find_others():
                return False
            self._get_section().mark_closing(self.name)
            return True

        return self.run_exclusively(close)

    def has_others(self) -> bool:
        """Return whether other drivers search the study."""
        return bool(self.run_exclusively(self._find_others))

    def _find_others(self) -> list[str]:
        section = self._get_section()
        self._remove_dead(section)
        return section.list_others(self.name)

    def run_exclusively(self, section: Callable[[], Result]) -> Result:
        """Run a function while no other driver of the study runs one.

        The function is repeated if the connection to the database is lost meanwhile, so that it must be repeatable.
        """
        if self._section is not None:
            return section()

        def run() -> Result:
            try:
                with self._storage.open_section(self._study, exclusive=True) as self._section:
                    return section()
            finally:
                self._section = None

        return retry_in_outage(self._storage, run, self._storage.is_outage)

    def _get_section(self) -> LeaseSection:
        assert self._section is not None, "this is a part of an exclusive section"
        return self._section

    def _call(self, operation: Callable[[LeaseSection], Result]) -> Result:
        """Execute an operation on the leases in the exclusive section of this driver, or in a transaction."""
        if self._section is not None:
            return operation(self._section)

        def run() -> Result:
            with self._storage.open_section(self._study, exclusive=False) as section:
                return operation(section)

        return retry_in_outage(self._storage, run, self._storage.is_outage)

    def read(self) -> dict[int, str]:
        """Return the driver of each leased trial, by number of the trial; a dead driver's leases are removed first."""

        def find(section: LeaseSection) -> dict[int, str]:
            self._remove_dead(section)
            return dict(section.read())

        return self._call(find)

    def claim(self, number: int) -> bool:
        """Take the lease of a trial.

        Returns:
            False if another driver holds it.

        Raises:
            LeaseLost: If this driver was declared dead.
        """

        def take() -> bool:
            section = self._get_section()
            self._remove_dead(section)
            holder = section.claim(self.name, number)
            self._lost = self._lost or holder is None
            self._require_leases()
            return holder == self.name

        return self.run_exclusively(take)

    def release(self, number: int) -> None:
        """Release the lease of a trial that has ended."""
        self._call(lambda section: section.release(self.name, number))

    def find_own(self) -> list[int]:
        """Return the numbers of the trials whose lease this driver holds."""
        return sorted(number for number, driver in self.read().items() if driver == self.name)

    def check(self) -> None:
        """Check before a write to the ledger that the leases are valid.

        Raises:
            LeaseLost: If another driver has removed this one, such as after a long stop of this process.
        """
        if not self._lost and _read_clock() - self._renewed > self.seconds:
            retry_in_outage(self._storage, self.renew, self._storage.is_outage)
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
        with self._storage.open_section(self._study, exclusive=False) as section:
            is_member = section.renew(self.name)
        if not is_member:
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
            except Exception as error:
                if not self._storage.is_outage(error):
                    raise
                # The next write to the ledger waits for it.

    def _remove_dead(self, section: LeaseSection) -> None:
        """Remove drivers that are dead.

        A driver that could not renew its own leases lately does not judge the others by the time, because an outage
        of the database stops the renewals of all drivers.
        """
        now = _read_clock()
        may_judge = now - self._steady_since >= self.seconds and now - self._renewed <= self.seconds / 2
        section.remove_dead(self.name, may_judge)


def _read_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike CLOCK_MONOTONIC, it includes the sleep of a laptop
