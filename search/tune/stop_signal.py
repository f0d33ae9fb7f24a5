"""SIGINT (Ctrl-C) and SIGTERM during a search: the first ends it in order, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Request of the user to end the search."""

    def __init__(self) -> None:
        self.given = False
        """Whether the user has requested to end the search."""

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Handle signals in this context: the first sets :attr:`given`, the second raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.given:
            raise KeyboardInterrupt
        self.given = True
