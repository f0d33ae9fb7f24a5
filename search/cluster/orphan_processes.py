"""Processes that a killed driver leaves behind, ended by the next one.

A driver that starts a Ray of its own writes down that Ray's processes. Killed before it could end them it leaves two
agents; the next search in the same home ends them, each by its pid and the time it was started, which no other process
shares.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["end_orphans", "record_processes"]

GRACE_SECONDS = 5.0


@contextmanager
def record_processes(folder: Path) -> Iterator[None]:
    """Within this context the processes that this one has started are written down.

    Args:
        folder: Where; one file a driver.
    """
    own = psutil.Process()
    family = [own, *own.children(recursive=True)]
    file = folder / f"{own.pid}.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([[p.pid, p.create_time()] for p in family]), encoding="ascii")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def end_orphans(folder: Path) -> None:
    """End the processes of drivers that are gone.

    Args:
        folder: Where they were written down.
    """
    for file in folder.glob("*.json"):
        (driver, *rest) = json.loads(file.read_text(encoding="ascii"))
        if _alive(*driver) is not None:
            continue
        left = [process for process in (_alive(*entry) for entry in rest) if process is not None]
        for process in left:
            process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=GRACE_SECONDS)
        for process in stubborn:
            process.kill()
        file.unlink(missing_ok=True)


def _alive(pid: int, started: float) -> psutil.Process | None:
    """The process of a pid if it is the one that was started then, and our own."""
    try:
        process = psutil.Process(pid)
        same = process.create_time() == started and process.uids().real == os.getuid()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
