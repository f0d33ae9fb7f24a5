"""The connection to Ray: a local Ray that this process starts, or a cluster that is already running."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import ray

from clinie_core.backbones.manifest import FOLDER_VARIABLE
from search.cluster.orphan_processes import end_orphans, record_processes

__all__ = ["ray_session"]

PASSED_ON = (FOLDER_VARIABLE,)
"""Variables of the driver that all processes of a search on a cluster need; they contain no secrets."""
PROCESSES = "ray-processes"
"""Folder within the home folder that records the processes of a local Ray."""


@contextmanager
def ray_session(folder: Path, *, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray within this context.

    An existing connection of this process is reused and stays open. Otherwise the context joins the cluster that
    ``RAY_ADDRESS`` names, or starts a local Ray and shuts it down at the end.

    Args:
        folder: Working folder within the context. Ray's workers import from it, and a user's ``search.py`` in the
            current folder would shadow this package.
        cpus: Number of CPU cores of a local Ray; all cores if None.
    """
    if ray.is_initialized():
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        if os.environ.get("RAY_ADDRESS"):
            variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            runtime = {"env_vars": variables} if variables else None
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
            started: AbstractContextManager[None] = nullcontext()
        else:
            end_orphans(folder / PROCESSES)
            # Without the address "local", Ray would join any Ray that runs on this machine.
            ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            # Ray makes the folder of its logs and sockets readable for everyone, whatever the umask is.
            Path(ray._private.worker._global_node.get_session_dir_path()).chmod(0o700)
            started = record_processes(folder / PROCESSES)
        # The ledger and the progress display report why a trial failed.
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        with started:
            yield
    finally:
        ray.shutdown()
        os.chdir(before)
