"""Dynamic batching: documents of concurrent requests are predicted together, grouped by length.

A document that arrives while the model is idle is predicted at once. Documents that arrive during a prediction form
the next batches. A long note does not delay short ones by more than one batch, and no document waits forever, because
each batch starts with the document that has waited longest.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from clinie_core.data.document import Document
from search.trials.failure import failure_reason

__all__ = ["DynamicBatcher", "Overloaded", "Predict", "PredictionFailed", "PredictionThread"]

Predict = Callable[[Sequence[Document]], Awaitable[Sequence[Document]]]
"""Predicts the annotations of documents, in their order."""

MAX_DOCUMENTS = 32
"""Maximum number of documents in a batch."""
MAX_CHARACTERS = 40_000
"""Maximum number of characters in a batch of several documents; the batch is padded to its longest document."""
LENGTH_RATIO = 2.0
"""Documents of a batch are at most this much longer or shorter than its first one."""
MIN_LENGTH = 400
"""Documents below this number of characters count as equally long."""
MAX_WAITING = 2048
"""Maximum number of waiting documents; further ones are rejected."""


class Overloaded(Exception):
    """Too many documents wait for a prediction."""


class PredictionFailed(Exception):
    """The model failed on one document; the message gives the error's type and location without any text."""


@dataclass(eq=False)
class _Waiting:
    document: Document
    result: asyncio.Future[Document]

    @property
    def length(self) -> int:
        return max(MIN_LENGTH, len(self.document.text))


class DynamicBatcher:
    """Queue of documents with a fixed number of concurrent predictions.

    Args:
        predict: Predicts the annotations of a batch.
        parallel: Number of batches that are predicted at the same time.
        max_waiting: Maximum number of waiting documents.
        on_batch: Called with the number of documents of each batch.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        parallel: int = 1,
        max_waiting: int = MAX_WAITING,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._predict = predict
        self._parallel = parallel
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Number of documents that wait for a batch."""
        return len(self._waiting)

    @property
    def overloaded(self) -> bool:
        """True if no further document is accepted."""
        return len(self._waiting) >= self._max_waiting

    async def predict(self, documents: Sequence[Document]) -> list[Document]:
        """Predict the annotations of a request's documents; cancelling the call removes those that still wait.

        Raises:
            Overloaded: If the queue is full.
            PredictionFailed: If the model fails on one of the documents.
        """
        if self._waiting and len(self._waiting) + len(documents) > self._max_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        own = [_Waiting(document, loop.create_future()) for document in documents]
        self._waiting += own
        self._start_batches()
        try:
            return await asyncio.gather(*(item.result for item in own))
        finally:
            for item in own:
                item.result.cancel()  # no effect on a result that has been set
            self._waiting = [item for item in self._waiting if not item.result.done()]

    def _start_batches(self) -> None:
        while self._waiting and len(self._running) < self._parallel:
            task = asyncio.create_task(self._run_batch(self._take_batch()))
            self._running.add(task)
            task.add_done_callback(self._end_batch)

    def _end_batch(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start_batches()

    def _take_batch(self) -> list[_Waiting]:
        """Remove the oldest document from the queue, with others of similar length."""
        first, *others = self._waiting
        batch, characters = [first], first.length
        for item in others:
            longer, shorter = max(item.length, first.length), min(item.length, first.length)
            fits = len(batch) < MAX_DOCUMENTS and characters + item.length <= MAX_CHARACTERS
            if fits and longer <= LENGTH_RATIO * shorter:
                batch.append(item)
                characters += item.length
        taken = {id(item) for item in batch}
        self._waiting = [item for item in self._waiting if id(item) not in taken]
        return batch

    async def _run_batch(self, batch: Sequence[_Waiting]) -> None:
        """Predict a batch; if that fails, predict each document alone, so that one cannot fail the others."""
        self._on_batch(len(batch))
        try:
            found = await self._predict([item.document for item in batch])
        except Exception as error:  # its message may quote a note
            if len(batch) == 1:
                _set_error(batch[0], PredictionFailed(failure_reason(error, allow_text=False)))
                return
            for item in batch:
                if not item.result.done():
                    await self._run_batch([item])
            return
        for item, document in zip(batch, found, strict=True):
            if not item.result.done():
                item.result.set_result(document)


def _set_error(item: _Waiting, error: Exception) -> None:
    if not item.result.done():
        item.result.set_exception(error)


class PredictionThread:
    """Thread that runs blocking predictions, one at a time.

    A daemon thread: a prediction that exceeds the time for shutting down does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="prediction", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._calls.get()()

    async def call(self, function: Callable[[], Sequence[Document]]) -> Sequence[Document]:
        """Call a function in the thread and return its result."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Sequence[Document]] = loop.create_future()

        def deliver(value: Sequence[Document] | None, error: Exception | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value or ())

        def run() -> None:
            try:
                value = function()
            except Exception as error:
                loop.call_soon_threadsafe(deliver, None, error)
            else:
                loop.call_soon_threadsafe(deliver, value, None)

        self._calls.put(run)
        return await result
