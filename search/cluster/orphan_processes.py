"""Orphan processes: processes of a local Ray whose driver was killed.

A driver that starts a local Ray records its processes in the home folder. A killed driver leaves two of Ray's agents
running. The next search in the same home ends them; a process is identified by its pid and start time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from search.storage.process_start import read_process_start

__all__ = ["end_orphans", "record_processes"]

GRACE_SECONDS = 5.0


@contextmanager
def record_processes(folder: Path) -> Iterator[None]:
    """Record the processes that this one has started; remove the record at the end of the context.

    Args:
        folder: Folder for the records, with one file per driver.
    """
    own = psutil.Process()
    family = [own, *own.children(recursive=True)]
    file = folder / f"{own.pid}.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(_identify(family))), encoding="ascii")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _identify(family: Iterable[psutil.Process]) -> Iterator[tuple[int, float]]:
    for process in family:
        with suppress(psutil.NoSuchProcess):
            yield process.pid, read_process_start(process.pid)


def end_orphans(folder: Path) -> None:
    """End the recorded processes of drivers that no longer run.

    Args:
        folder: Folder with the records.
    """
    for file in folder.glob("*.json"):
        (driver, *rest) = json.loads(file.read_text(encoding="ascii"))
        if _find_process(*driver) is not None:
            continue
        orphans = [process for process in (_find_process(*entry) for entry in rest) if process is not None]
        for process in orphans:
            process.terminate()
        _, running = psutil.wait_procs(orphans, timeout=GRACE_SECONDS)
        for process in running:
            process.kill()
        file.unlink(missing_ok=True)


def _find_process(pid: int, started: float) -> psutil.Process | None:
    """Return the running process with this pid and start time if it belongs to this user."""
    try:
        process = psutil.Process(pid)
        same = read_process_start(pid) == started and process.uids().real == os.getuid()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
