"""Ctrl-C and SIGTERM during a search: the first one ends it in order, a second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Whether somebody asked the search to stop."""

    def __init__(self) -> None:
        self.given = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context the first signal sets :attr:`given`; the second raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only a program's main thread may handle signals
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
