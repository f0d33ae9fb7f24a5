"""What MLflow has yet to be told: events that wait, in order, while the server is away.

An event goes out at once as long as nothing waits. Once a delivery fails because the server is away,
that event and all after it are written to a file, and go out in the same order when the server answers
again, be it in this process or in a later one. A delivery may be cut off after the server has taken it
in, so each event is delivered in a way that a second time changes nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinie_core.errors import map_disk_full

__all__ = ["Event", "Outbox"]

Event = dict[str, Any]
"""A JSON object."""
PAUSE_SECONDS = 5.0
"""How long a server that is away is left alone before it is asked again."""


class Outbox:
    """Events on their way.

    Args:
        file: Keeps what waits; what is in it already goes out first.
        deliver: Delivers an event; its second argument says that an earlier delivery of the same event may
            have arrived. Raises whatever the client raises.
        is_unreachable: Whether an error of ``deliver`` means that the server is away.
    """

    def __init__(
        self, file: Path, deliver: Callable[[Event, bool], None], is_unreachable: Callable[[Exception], bool]
    ) -> None:
        self._file = file
        self._deliver = deliver
        self._is_unreachable = is_unreachable
        self._asked = 0.0
        self._waiting: deque[Event] = deque()
        if file.exists():
            written = file.read_bytes()
            whole = written[: written.rfind(b"\n") + 1]
            if whole != written:  # a line that a crash cut off was never acknowledged to anybody
                os.truncate(file, len(whole))
            self._waiting.extend(json.loads(line) for line in whole.splitlines())

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def put(self, event: Event) -> bool:
        """Deliver an event, or keep it if the server is away.

        Returns:
            Whether it was delivered.

        Raises:
            DiskFull: If it can be neither delivered nor kept.
        """
        if self._waiting and time.monotonic() - self._asked >= PAUSE_SECONDS:
            self.flush()
        if not self._waiting and self._try(event, again=False):
            return True
        self._keep(event)
        return False

    def flush(self) -> bool:
        """Deliver what waits, in order, as far as the server takes it.

        Returns:
            Whether nothing waits any more.
        """
        while self._waiting and self._try(self._waiting[0], again=True):
            self._waiting.popleft()
        if not self._waiting:
            self._file.unlink(missing_ok=True)
        return not self._waiting

    def drain(self, seconds: float) -> bool:
        """Go on flushing for so long.

        Returns:
            Whether nothing waits any more.
        """
        deadline = time.monotonic() + seconds
        while not self.flush():
            if time.monotonic() + PAUSE_SECONDS > deadline:
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _try(self, event: Event, *, again: bool) -> bool:
        self._asked = time.monotonic()
        try:
            self._deliver(event, again)
        except Exception as error:
            if self._is_unreachable(error):
                return False
            raise
        return True

    def _keep(self, event: Event) -> None:
        self._waiting.append(event)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with map_disk_full(self._file), self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
