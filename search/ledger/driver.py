"""Identity of a driver; other drivers recognize it and notice its end."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from search.ledger.journal import LedgerUnavailable
from search.storage.process_start import read_process_start

__all__ = ["Driver", "LeaseLost", "get_driver", "is_process_gone", "shorten_names"]


class LeaseLost(LedgerUnavailable):
    """Error of a driver that was removed from the study by another driver."""


@dataclass(frozen=True)
class Driver:
    """A process that searches a study.

    Args:
        name: Unique name, which begins with the name of its host.
        machine: Identifies the boot of its machine and its process namespace.
        pid: Its process id.
        started: Start of the process, in a unit of its machine.
    """

    name: str
    machine: str
    pid: int
    started: float

    @classmethod
    def of_this_process(cls) -> Driver:
        """Return a new identity of this process."""
        pid = os.getpid()
        started = _read_start(pid)
        assert started is not None, "this process is running"
        name = f"{socket.gethostname()}-{pid}-{uuid.uuid4().hex[:6]}"
        return cls(name, _read_machine(), pid, started)


@cache
def get_driver() -> Driver:
    """Return the identity of this process."""
    return Driver.of_this_process()


def is_process_gone(machine: str, pid: int, started: float) -> bool:
    """Return whether a driver's process has ended; False if it runs on another machine.

    Args:
        machine: Machine of the driver.
        pid: Its process id.
        started: Start of the process, in a unit of its machine.
    """
    if machine != _read_machine():
        return False
    return _read_start(pid) != started


def _read_start(pid: int) -> float | None:
    """Return when a process started; None if it has ended, also if its parent has not collected it yet."""
    try:
        is_ended = psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return None if is_ended else read_process_start(pid)
    except psutil.NoSuchProcess:
        return None


@cache
def _read_machine() -> str:
    """Return an id of this machine's boot and of the process namespace; unique where they cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex


def shorten_names(drivers: Iterable[str | None]) -> dict[str, str]:
    """Return short names of drivers: that of the host, or with the pid if a host has several.

    Args:
        drivers: Names of drivers; None for an unknown one.

    Returns:
        The short name of each known driver.
    """
    known = sorted({driver for driver in drivers if driver})
    for parts in (2, 1):
        names = {driver: driver.rsplit("-", parts)[0] for driver in known}
        if len(set(names.values())) == len(known):
            return names
    return {driver: driver for driver in known}
