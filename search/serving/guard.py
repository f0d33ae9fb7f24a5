"""Limits of the HTTP service, enforced before a request reaches the application.

An ASGI middleware checks the Host header, the token and the content type, reads the body with a limit in bytes and
seconds, and cancels the work for a client that has disconnected. Its answers never quote the request.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse, Response

from search.serving.metrics import ServiceMetrics
from search.trials.failure import failure_reason

__all__ = ["Guard", "Limits", "make_error"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that need no token: an orchestrator probes them."""
BUFFERED_REQUESTS = 32
"""The bodies that are being read take at most this many times the limit of one request."""


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Args:
        max_bytes: Maximum size of a body in bytes.
        body_seconds: Time in which a client must send its body.
        answer_seconds: Time in which a request must be answered.
        hosts: Host names that a client may use, in lower case; numeric addresses are always allowed.
        token: Token that requests must carry as ``Authorization: Bearer``; None requires none.
    """

    max_bytes: int = 4 * 2**20
    body_seconds: float = 10.0
    answer_seconds: float = 300.0
    hosts: frozenset[str] = field(default_factory=lambda: frozenset({"localhost", socket.gethostname().lower()}))
    token: str | None = field(default=None, repr=False)


def make_error(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """Return the JSON response of an error."""
    return JSONResponse({"error": message, **more}, status_code=status, headers=headers)


class _Rejected(Exception):
    """A request that is answered without the application."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        # The rest of the body is not read, so the connection cannot be used again.
        self.response = make_error(status, message, {"Connection": "close", **(headers or {})})


class Guard:
    """ASGI application that applies limits to another one.

    Args:
        app: The application.
        limits: The limits.
        metrics: Receives the status and duration of each request.
    """

    def __init__(self, app: Application, limits: Limits, metrics: ServiceMetrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.observe_request(lambda: status):
            try:
                self._check_headers(scope)
                body = await self._read_body(receive) if scope["method"] == "POST" else b""
                await self._run(scope, body, receive, record_status)
            except _Rejected as rejected:
                await rejected.response(scope, receive, record_status)
            except _Disconnected:
                self._metrics.abandoned.inc()
            except Exception as error:  # the server would log its traceback, which could quote a note
                if not status:
                    await _make_failure(error)(scope, receive, record_status)

    def _check_headers(self, scope: Scope) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not _is_allowed_host(headers.get("host", ""), self._limits.hosts):
            # Without this check, a web page could reach the service by a name that resolves to this machine.
            raise _Rejected(421, "unknown host name; use an address, or name the host with --allow-host")
        token = self._limits.token
        if token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode()):
                raise _Rejected(401, "a valid token is required", {"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise _Rejected(415, "unsupported content type; send application/json")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > self._limits.max_bytes:
                raise _Rejected(413, f"at most {self._limits.max_bytes:,} bytes in a request")

    async def _read_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    self._buffered += len(part)
                    if size > self._limits.max_bytes:
                        raise _Rejected(413, f"at most {self._limits.max_bytes:,} bytes in a request")
                    if self._buffered > BUFFERED_REQUESTS * self._limits.max_bytes:
                        raise _Rejected(503, "too many large requests at once", {"Retry-After": "1"})
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _Rejected(408, f"the body did not arrive within {self._limits.body_seconds:g} s") from None
        finally:
            self._buffered -= size

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application until it has answered, the client disconnects or the time is over."""
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        if scope["method"] != "POST":  # there is no body to replay, and the answer is immediate
            await self._app(scope, receive, send)
            return
        answer = asyncio.ensure_future(self._app(scope, replay, send))
        disconnect = asyncio.ensure_future(receive())
        try:
            done, _ = await asyncio.wait(
                (answer, disconnect), timeout=self._limits.answer_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if answer in done:
                answer.result()
            elif done:
                raise _Disconnected
            else:
                raise _Rejected(504, f"no answer within {self._limits.answer_seconds:g} s")
        finally:
            for task in (answer, disconnect):
                task.cancel()
            await asyncio.gather(answer, disconnect, return_exceptions=True)


class _Disconnected(Exception):
    """The client has closed its connection."""


def _make_failure(error: Exception) -> Response:
    return make_error(500, failure_reason(error, allow_text=False))


def _is_allowed_host(header: str, hosts: frozenset[str]) -> bool:
    """Return whether a Host header names this service: a numeric address, or one of the host names."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower().rstrip(".") in hosts
    return True
