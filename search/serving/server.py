"""The HTTP server of a model: one process with uvicorn, which ends within a bounded time.

The port is opened before the model is loaded, so that a port that is in use is reported at once. Requests that arrive
while the model is loaded wait until it is ready.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clinie_core.errors import fail
from search.promotion.model_source import ModelSource
from search.serving.api import make_api
from search.serving.guard import Guard, Limits
from search.serving.local_backend import LocalBackend
from search.serving.metrics import ServiceMetrics
from search.serving.service import Backend, Service

__all__ = ["ServerSettings", "open_port", "run_server", "serve_model"]

HEADER_SECONDS = 10.0
"""Time in which a client must send the headers of a request, and time after which an idle connection is closed."""
BACKLOG = 512


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the HTTP server.

    Args:
        limits: Limits of a request.
        max_characters: Maximum number of characters in one note.
        drain_seconds: Time in which requests in progress are answered after SIGTERM or SIGINT.
        certificate: File with the TLS certificate and its chain; None for plain HTTP.
        key: File with the private key of the certificate.
    """

    limits: Limits
    max_characters: int
    drain_seconds: float = 30.0
    certificate: Path | None = None
    key: Path | None = None


def open_port(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        InputError: If the port is in use or not permitted, or the host is not an address of this machine.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # reuse_port would allow several servers to share a port, and clients would reach any of them.
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=False)
    except socket.gaierror:
        fail("--host", f"{host!r} is not a host name or address", allowed="an address of this machine")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail("--port", f"port {port} of {host} is in use", remedy="stop the other server or choose another port")
        if error.errno == errno.EACCES:
            fail("--port", f"port {port} needs privileges", allowed="1024 to 65535")
        if error.errno == errno.EADDRNOTAVAIL:
            fail("--host", f"{host} is not an address of this machine", allowed="127.0.0.1, 0.0.0.0 or an own address")
        raise


def serve_model(
    source: ModelSource,
    listener: socket.socket,
    settings: ServerSettings,
    home: Path,
    *,
    follow: bool,
    threads: int,
    replicas: int,
    gpus: float | None,
    ready: Callable[[], None],
) -> None:
    """Serve a registered model until SIGINT or SIGTERM.

    Args:
        source: The registered model.
        listener: A socket of :func:`open_port`.
        settings: Settings of the server.
        home: Home folder; Ray's working folder.
        follow: Whether to load another version when the alias moves to it.
        threads: Number of CPU cores for predictions of each process.
        replicas: Number of processes; one predicts in this process.
        gpus: Number or fraction of GPUs of each process; None for one GPU if there is one.
        ready: Callback, called once the service answers requests.

    Raises:
        InputError: If the registry has no such model.
    """
    files = source.fetch()
    with _open_backend(home, threads, replicas, gpus) as backend:
        service = Service(source, files, backend, ServiceMetrics(), follow=follow)
        run_server(listener, service, settings, ready)


@contextmanager
def _open_backend(home: Path, threads: int, replicas: int, gpus: float | None) -> Iterator[Backend]:
    if replicas == 1:
        yield LocalBackend(threads, use_gpu=gpus != 0)
        return
    from search.serving.replica_backend import run_replicas  # imports Ray

    with run_replicas(home, replicas, threads, gpus) as backend:
        yield backend


def run_server(listener: socket.socket, service: Service, settings: ServerSettings, ready: Callable[[], None]) -> None:
    """Load the model and answer requests until SIGINT or SIGTERM, then finish the requests in progress.

    Args:
        listener: A socket of :func:`open_port`.
        service: The model to serve.
        settings: Settings of the server.
        ready: Callback, called once the service answers requests.
    """
    with asyncio.Runner(loop_factory=_choose_loop_factory()) as runner:
        runner.run(_serve(listener, service, settings, ready))


async def _serve(
    listener: socket.socket, service: Service, settings: ServerSettings, ready: Callable[[], None]
) -> None:
    await service.load()
    app = Guard(make_api(service, settings.max_characters), settings.limits, service.metrics)
    _raise_file_limit()
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
    server = _Server(config, service)
    watcher = asyncio.create_task(service.watch_alias())
    try:
        ready()
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


def _choose_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is not available on every platform
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _raise_file_limit() -> None:
    """Allow as many open connections as the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems do not permit their own hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Server(uvicorn.Server):
    """Server that shuts down without passing the signal on, which would end the process with an error."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Shut down at the first signal; the second one ends the process without waiting."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        if self.should_exit:
            os._exit(1)
        self._service.draining = True
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """HTTP protocol that closes a connection whose headers do not arrive in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Start the time for the next request with its first bytes."""
        super().data_received(data)
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop the time: the body has its own limit."""
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
