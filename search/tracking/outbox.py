"""Queue of events for MLflow: a file, from which a thread delivers the events in batches.

An event is accepted once it is in the file, so that neither an unavailable server nor a slow one delays the search, a
killed process loses no event, and a backlog needs no memory. The events are delivered in order. Those that a killed
process may have delivered are delivered again by the next process, and so is a batch during which the connection
broke. Delivering an event twice must therefore have no further effect.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinie_core.errors import map_disk_full

__all__ = ["Deliver", "Event", "Outbox"]

Event = dict[str, Any]
"""A JSON object."""
Deliver = Callable[[Sequence[Event], bool], None]
"""Delivers events in order. The second argument is whether an earlier delivery of them may have succeeded."""
PAUSE_SECONDS = 5.0
"""Time between two attempts to reach an unavailable server."""
BATCH_EVENTS = 100
"""Largest number of events of a batch."""
STALE_BYTES = 1 << 20
"""Size of the delivered events at which the file is replaced by one with the other events only."""


class Outbox:
    """Queue of undelivered events.

    Args:
        file: File of the waiting events; those already in it are delivered first.
        deliver: Delivers a batch of events. It raises the errors of the client.
        is_unavailable: Returns whether an error of ``deliver`` means that the delivery can succeed later. An event
            with another error is dropped, and the error is raised by a later call.
    """

    def __init__(self, file: Path, deliver: Deliver, is_unavailable: Callable[[Exception], bool]) -> None:
        self._file = file
        self._mark = file.with_suffix(".delivered")
        """File with the number of delivered bytes; missing if there are none."""
        self._deliver = deliver
        self._is_unavailable = is_unavailable
        self._changed = threading.Condition()
        self._errors: deque[Exception] = deque()
        self._stops = False
        self._thread: threading.Thread | None = None
        self._delivered, self._size, self._waiting = self._open()
        self._repeated = self._size
        """Bytes of the events that may have been delivered before."""
        if self._waiting:
            self._start()

    def _open(self) -> tuple[int, int, int]:
        """Return the delivered bytes, all bytes and the number of waiting events of the file that a process left."""
        if not self._file.exists():
            self._mark.unlink(missing_ok=True)
            return 0, 0, 0
        written = self._file.read_bytes()
        size = written.rfind(b"\n") + 1
        if size != len(written):  # a crash truncated the last line, whose event was not accepted
            os.truncate(self._file, size)
        text = self._mark.read_text(encoding="ascii") if self._mark.exists() else ""
        delivered = int(text) if text.isdecimal() else 0
        if delivered > size or (delivered and written[delivered - 1 : delivered] != b"\n"):
            delivered = 0
        return delivered, size, written.count(b"\n", delivered)

    def __len__(self) -> int:
        """Return the number of waiting events."""
        return self._waiting

    def put(self, event: Event) -> None:
        """Accept an event; a thread delivers it.

        Raises:
            DiskFull: If it cannot be stored.
            Exception: The error of an earlier event that was dropped.
        """
        self.raise_error()
        line = json.dumps(event).encode() + b"\n"
        with self._changed:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with map_disk_full(self._file), self._file.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            self._size += len(line)
            self._waiting += 1
            self._changed.notify_all()
            if self._thread is None:
                self._start()

    def raise_error(self) -> None:
        """Raise the first error that was not raised yet; all later ones are notes of it.

        Raises:
            Exception: The error of an event that was dropped.
        """
        if not self._errors:
            return
        error = self._errors.popleft()
        while self._errors:
            later = self._errors.popleft()
            error.add_note(f"another event for MLflow failed: {type(later).__name__}: {later}")
        raise error

    def drain(self, seconds: float) -> bool:
        """Wait until all events are delivered.

        Args:
            seconds: Maximum time in seconds without a delivery.

        Returns:
            True if no event is waiting.

        Raises:
            Exception: The error of an event that was dropped.
        """
        with self._changed:
            while self._waiting and not self._stops:
                before = self._waiting
                if not self._changed.wait_for(partial(self._has_changed, before), seconds):
                    break
        self.raise_error()
        return not self._waiting

    def _has_changed(self, waiting: int) -> bool:
        return self._stops or self._waiting < waiting

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread after its current batch; the other events stay in the file.

        Args:
            seconds: Maximum time in seconds to wait for that batch.
        """
        with self._changed:
            self._stops = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="mlflow-outbox", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Deliver batches until the outbox is stopped; an error of the outbox itself ends the thread."""
        try:
            self._deliver_batches()
        except Exception as error:
            self._errors.append(error)
        finally:
            with self._changed:
                self._stops = True
                self._changed.notify_all()

    def _deliver_batches(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stops)
                if self._stops:
                    return
                lines = self._read_batch()
                again = self._delivered < self._repeated
            if self._deliver_lines(lines, again=again):
                continue
            with self._changed:
                self._repeated = max(self._repeated, self._delivered + sum(map(len, lines)))
                self._changed.wait_for(lambda: self._stops, PAUSE_SECONDS)

    def _read_batch(self) -> list[bytes]:
        with self._file.open("rb") as stream:
            stream.seek(self._delivered)
            return [stream.readline() for _ in range(min(self._waiting, BATCH_EVENTS))]

    def _deliver_lines(self, lines: Sequence[bytes], *, again: bool) -> bool:
        """Deliver a batch, and its events one by one if one of them is rejected.

        Returns:
            False if the server is unavailable.
        """
        try:
            self._deliver([json.loads(line) for line in lines], again)
        except Exception as error:
            if self._is_unavailable(error):
                return False
            if len(lines) > 1:
                return all(self._deliver_lines([line], again=True) for line in lines)
            self._errors.append(error)
        self._advance(lines)
        return True

    def _advance(self, lines: Sequence[bytes]) -> None:
        """Register events as delivered or dropped, and remove them from the file from time to time."""
        with self._changed:
            self._delivered += sum(map(len, lines))
            self._waiting -= len(lines)
            # The mark is removed first: with an old mark, a later process would skip events of a new file.
            if not self._waiting:
                self._mark.unlink(missing_ok=True)
                self._file.unlink(missing_ok=True)
                self._delivered = self._size = self._repeated = 0
            elif self._delivered > max(STALE_BYTES, self._size - self._delivered):
                self._replace_file()
            else:
                self._mark.write_text(str(self._delivered), encoding="ascii")
            self._changed.notify_all()

    def _replace_file(self) -> None:
        """Replace the file by one without the delivered events."""
        new = self._file.with_suffix(".new")
        with map_disk_full(new), self._file.open("rb") as old, new.open("wb") as stream:
            old.seek(self._delivered)
            stream.write(old.read())
            stream.flush()
            os.fsync(stream.fileno())
        self._mark.unlink(missing_ok=True)
        new.replace(self._file)
        self._repeated = max(0, self._repeated - self._delivered)
        self._size -= self._delivered
        self._delivered = 0
