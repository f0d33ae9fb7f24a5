"""Leases through the gRPC proxy of a ledger: each transaction on the leases is one stream of calls.

The server holds the transaction while the stream is open. If the driver or the connection ends before the driver has
requested the commit, the transaction is rolled back and its lock is released.
"""

from __future__ import annotations

import functools
import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
from sqlalchemy.exc import InterfaceError, OperationalError

from search.ledger.lease_tables import LeaseSection

if TYPE_CHECKING:
    from search.ledger.database import DatabaseStorage

__all__ = ["has_leases", "make_lease_handler", "open_remote_section"]

SERVICE, METHOD = "clinie.Leases", "Section"
COMMIT = "commit"
SECTION_SECONDS = 600.0
"""Time after which the server ends a stream, including the wait for an exclusive section."""
OPERATIONS = frozenset(name for name in vars(LeaseSection) if not name.startswith("_"))


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()


def make_lease_handler(storage: DatabaseStorage) -> grpc.GenericRpcHandler:
    """Return the part of a gRPC server that executes transactions on the leases of a database.

    Args:
        storage: The PostgreSQL ledger.
    """

    def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        first = next(requests, None)
        if first is None:
            return
        try:
            with storage.open_section(str(first["study"]), exclusive=bool(first["exclusive"])) as section:
                yield [None]  # gRPC takes None for the end of the stream
                for request in requests:
                    operation = str(request["operation"])
                    if operation == COMMIT:
                        break
                    if operation not in OPERATIONS:
                        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unknown operation {operation!r}")
                    yield [getattr(section, operation)(*request["arguments"])]
                else:
                    raise _Cancelled  # so that the transaction is rolled back
        except _Cancelled:
            return
        except (OperationalError, InterfaceError):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the database is unavailable")
        yield [None]

    handler = grpc.stream_stream_rpc_method_handler(run, json.loads, _encode)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})


class _Cancelled(Exception):
    """The stream has ended without a commit."""


class _RemoteSection:
    """Operations of a :class:`LeaseSection` at the server."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        return functools.partial(self._call, operation)


@contextmanager
def open_remote_section(channel: grpc.Channel, study: str, *, exclusive: bool) -> Iterator[LeaseSection]:
    """Open a transaction on the leases of a study at the server, as :func:`search.ledger.lease_tables.open_section`.

    Args:
        channel: A channel to the proxy.
        study: Name of the study.
        exclusive: Whether no other driver is in an exclusive section of the study at the same time.

    Raises:
        grpc.RpcError: If the proxy or its database is unavailable, or it does not support leases.
    """
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    requests.put({"study": study, "exclusive": exclusive})
    start = channel.stream_stream(f"/{SERVICE}/{METHOD}", _encode, json.loads)
    stream = start(iter(requests.get, None), timeout=SECTION_SECONDS)

    def call(operation: str, *arguments: object) -> Any:
        requests.put({"operation": operation, "arguments": arguments})
        return next(stream)[0]

    try:
        next(stream)
        yield cast("LeaseSection", _RemoteSection(call))
        call(COMMIT)
    finally:
        requests.put(None)
        stream.cancel()


def has_leases(channel: grpc.Channel) -> bool:
    """Return whether a proxy passes on leases: its database is PostgreSQL, and its version of clinie supports them."""
    try:
        with open_remote_section(channel, "", exclusive=False):
            return True
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return False
        raise
