"""The connection to Ray: a local one that this process starts, or a cluster that runs already."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import ray

from search.cluster.orphan_processes import end_orphans, record_processes

__all__ = ["ray_session"]

PROCESSES = "ray-processes"
"""Folder of a home in which the processes of a local Ray are written down."""


@contextmanager
def ray_session(folder: Path, *, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a search.

    A cluster is joined if ``RAY_ADDRESS`` names one; a connection that this process already has is
    used and left as it is; otherwise a local Ray is started, and ended with the search.

    Args:
        folder: Becomes the working folder while Ray starts: Ray's workers import from it, and a
            user's own ``search.py`` in the current folder would shadow ours there.
        cpus: Cores of a local Ray; all if left out.
    """
    if ray.is_initialized():
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            started: AbstractContextManager[None] = nullcontext()
        else:
            end_orphans(folder / PROCESSES)
            # By its own account "local": without an address it would join whatever Ray runs on this machine.
            ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            started = record_processes(folder / PROCESSES)
        # Why a trial failed stands in the ledger and in the progress display, in one line.
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        with started:
            yield
    finally:
        ray.shutdown()
        os.chdir(before)
