"""A lock of a whole model registry, so that promotions of several processes and machines do not overlap.

MLflow's API has no transactions, but creating a registered model fails if its name is taken. The lock is a registered
model that exists while the lock is held. It is held for the few requests that append an entry to a history, and never
while a model is measured.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.storage.process_start import read_process_start

__all__ = ["LOCK_MODEL", "RegistryLocked", "lock_registry"]

LOCK_MODEL = "clinie-lock"
"""Name of the registered model that exists while the registry is locked."""
LEASE_SECONDS = 60.0
"""Age at which the lock of another machine counts as left by a process that was killed."""
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.1


class RegistryLocked(RuntimeError):
    """Another process holds the lock of the registry; the message names it."""


@contextmanager
def lock_registry(client: MlflowClient) -> Iterator[None]:
    """Hold the registry's lock within this context; wait for a process that holds it.

    The lock of a process of this machine that has ended is removed at once.

    Args:
        client: Client of the registry.

    Raises:
        RegistryLocked: If the lock is not free after three minutes.
    """
    owner = json.dumps(_describe_process())
    deadline = time.monotonic() + WAIT_SECONDS
    while not _create_lock(client, owner):
        holder, age = _read_holder(client)
        if holder is not None and _is_stale(holder, age):
            _remove_lock(client)
        elif time.monotonic() > deadline:
            raise RegistryLocked(
                f"the registry is locked by process {(holder or {}).get('pid')} on {(holder or {}).get('host')};"
                f" if it has ended, delete the registered model {LOCK_MODEL!r}"
            )
        else:
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        _remove_lock(client)


def _describe_process() -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": read_process_start(os.getpid())}


def _create_lock(client: MlflowClient, owner: str) -> bool:
    try:
        client.create_registered_model(LOCK_MODEL, description=owner)
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            return False
        raise
    return True


def _remove_lock(client: MlflowClient) -> None:
    try:
        client.delete_registered_model(LOCK_MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _read_holder(client: MlflowClient) -> tuple[dict[str, object] | None, float]:
    """Return the process that holds the lock and the lock's age in seconds; None if the lock was released."""
    try:
        model = client.get_registered_model(LOCK_MODEL)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None, 0.0
        raise
    age = time.time() - model.creation_timestamp / 1000
    try:
        holder = json.loads(model.description or "")
    except ValueError:
        return {}, age
    return holder if isinstance(holder, dict) else {}, age


def _is_stale(holder: dict[str, object], age: float) -> bool:
    if holder.get("host") == socket.gethostname() and isinstance(holder.get("pid"), int):
        try:
            return read_process_start(int(str(holder["pid"]))) != holder.get("started")
        except psutil.NoSuchProcess:
            return True
    return age > LEASE_SECONDS
