"""Queue of events for MLflow that survives an unavailable server.

An event is delivered immediately if no event is waiting. If a delivery fails because the server is
unavailable, this event and all later ones are written to a file. They are delivered in the same order when the
server answers again, by this process or a later one. A connection can break after the server has accepted an
event, so delivering an event twice must have no further effect.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_result, stop_before_delay, wait_fixed

from clinie_core.errors import map_disk_full

__all__ = ["Event", "Outbox"]

Event = dict[str, Any]
"""A JSON object."""
PAUSE_SECONDS = 5.0
"""Minimum time between two attempts to reach an unavailable server."""


class Outbox:
    """Queue of undelivered events.

    Args:
        file: File of the waiting events; those already in it are delivered first.
        deliver: Function that delivers an event. Its second argument is whether an earlier delivery of the same
            event may have succeeded. It raises the errors of the client.
        is_unreachable: Function that returns whether an error of ``deliver`` means that the server is unavailable.
    """

    def __init__(
        self, file: Path, deliver: Callable[[Event, bool], None], is_unreachable: Callable[[Exception], bool]
    ) -> None:
        self._file = file
        self._deliver = deliver
        self._is_unreachable = is_unreachable
        self._last_attempt = 0.0
        self._waiting: deque[Event] = deque()
        if file.exists():
            written = file.read_bytes()
            complete = written[: written.rfind(b"\n") + 1]
            if complete != written:  # a crash truncated the last line, whose event was not accepted
                os.truncate(file, len(complete))
            self._waiting.extend(json.loads(line) for line in complete.splitlines())

    def __len__(self) -> int:
        """Return the number of waiting events."""
        return len(self._waiting)

    def put(self, event: Event) -> bool:
        """Deliver an event, or store it if the server is unavailable.

        Returns:
            True if it was delivered.

        Raises:
            DiskFull: If it can be neither delivered nor stored.
        """
        if self._waiting and time.monotonic() - self._last_attempt >= PAUSE_SECONDS:
            self.flush()
        if not self._waiting and self._try_delivery(event, again=False):
            return True
        self._store(event)
        return False

    def flush(self) -> bool:
        """Deliver the waiting events in order until one fails because the server is unavailable.

        Returns:
            True if no event is waiting.
        """
        while self._waiting and self._try_delivery(self._waiting[0], again=True):
            self._waiting.popleft()
        if not self._waiting:
            self._file.unlink(missing_ok=True)
        return not self._waiting

    def drain(self, seconds: float) -> bool:
        """Repeat :meth:`flush` until no event is waiting or the time is over.

        Args:
            seconds: Maximum time in seconds.

        Returns:
            True if no event is waiting.
        """
        attempts = Retrying(
            retry=retry_if_result(lambda is_empty: not is_empty),
            stop=stop_before_delay(seconds),
            wait=wait_fixed(PAUSE_SECONDS),
            retry_error_callback=lambda _: False,
        )
        return bool(attempts(self.flush))

    def _try_delivery(self, event: Event, *, again: bool) -> bool:
        self._last_attempt = time.monotonic()
        try:
            self._deliver(event, again)
        except Exception as error:
            if self._is_unreachable(error):
                return False
            raise
        return True

    def _store(self, event: Event) -> None:
        self._waiting.append(event)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with map_disk_full(self._file), self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
