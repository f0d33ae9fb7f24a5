"""Optuna's gRPC proxy of a ledger's database, for machines that cannot connect to the database.

The proxy passes on Optuna's calls. It does not pass on leases, so that a driver that uses it must be the only one of
its study. It has no authentication.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import grpc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy, run_grpc_proxy_server

from clinie_core.errors import fail
from search.ledger.database import DatabaseStorage, retry_in_outage
from search.storage.home import LEDGER_VARIABLE

__all__ = ["ProxyStorage", "open_proxy", "serve_ledger"]

CONNECT_SECONDS = 10.0
OUTAGES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class ProxyStorage(GrpcStorageProxy):
    """A storage behind a gRPC proxy, whose calls are retried while the proxy is unavailable."""

    def __init__(self, host: str, port: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(host=host, port=port)
        self.shown = f"grpc://{host}:{port}"


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
    warnings.simplefilter("ignore", ExperimentalWarning)
    try:
        run_grpc_proxy_server(storage, host=host, port=port)
    except RuntimeError:
        fail("--port", f"{host}:{port} is not available", allowed="a free port of this machine")


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
