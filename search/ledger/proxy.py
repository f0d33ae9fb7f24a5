"""Optuna's gRPC proxy of a ledger's database, for machines that cannot connect to the database.

The proxy passes on Optuna's calls, and the transactions on leases if the database is PostgreSQL; see
:mod:`search.ledger.lease_proxy`. It has no authentication.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import grpc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.server import make_server

from clinie_core.errors import fail
from search.ledger.database import DatabaseStorage, retry_in_outage
from search.ledger.lease_proxy import has_leases, make_lease_handler, open_remote_section
from search.ledger.lease_tables import LeaseSection
from search.storage.home import LEDGER_VARIABLE

__all__ = ["ProxyStorage", "open_proxy", "serve_ledger"]

CONNECT_SECONDS = 10.0
MAX_CALLS = 64
"""Number of calls that a server executes at once."""
OUTAGES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class ProxyStorage(GrpcStorageProxy):
    """A storage behind a gRPC proxy, whose calls are retried while the proxy is unavailable."""

    def __init__(self, host: str, port: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(host=host, port=port)
        self.shown = f"grpc://{host}:{port}"

    @functools.cached_property
    def has_leases(self) -> bool:
        """True if several drivers may search one study."""
        return retry_in_outage(self, lambda: has_leases(self._channel), _is_outage)

    def open_section(self, study: str, *, exclusive: bool) -> AbstractContextManager[LeaseSection]:
        """Open a transaction on the leases of a study; see :mod:`search.ledger.leases`."""
        return open_remote_section(self._channel, study, exclusive=exclusive)

    def is_outage(self, error: BaseException) -> bool:
        """Return whether an error means that the proxy or its database is unavailable."""
        return _is_outage(error)


def open_proxy(url: str) -> ProxyStorage:
    """Open the storage behind a proxy.

    Args:
        url: Its URL, such as ``grpc://host:13000``.

    Raises:
        InputError: If the URL is malformed, or the proxy does not answer.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path.strip("/"):
        return fail(LEDGER_VARIABLE, "not the URL of a proxy", allowed="grpc://HOST:PORT")
    storage = ProxyStorage(host, port)
    try:
        storage.wait_server_ready(CONNECT_SECONDS)
    except ConnectionError:
        remedy = "start it on a machine with access to the database: clinie ledger serve"
        fail(LEDGER_VARIABLE, f"no proxy answers at {storage.shown}", remedy=remedy)
    return storage


def serve_ledger(storage: DatabaseStorage, host: str, port: int) -> None:
    """Serve a database ledger until the process ends.

    Args:
        storage: The database.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        InputError: If the address is not available.
    """
    try:
        # A transaction on leases keeps a thread until it ends, and the calls within it need others.
        server = make_server(storage, host, port, ThreadPoolExecutor(MAX_CALLS))
    except RuntimeError:
        fail("--port", f"{host}:{port} is not available", allowed="a free port of this machine")
    if storage.has_leases:
        server.add_generic_rpc_handlers([make_lease_handler(storage)])
    server.start()
    server.wait_for_termination()


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) and error.code() in OUTAGES


def _retry(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: ProxyStorage, *args: Any, **kwargs: Any) -> Any:
        return retry_in_outage(self, lambda: method(self, *args, **kwargs), _is_outage)

    return call


for _name, _method in list(vars(GrpcStorageProxy).items()):
    if inspect.isfunction(_method) and not _name.startswith("_") and _name not in ("wait_server_ready", "close"):
        setattr(ProxyStorage, _name, _retry(_method))
