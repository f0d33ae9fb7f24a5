"""Prediction in the process of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from clinie_core.config import Task
from clinie_core.data.document import Document
from clinie_core.garbage_collection import suspend_collection
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from search.serving.batching import PredictionThread

__all__ = ["LocalBackend"]


class LocalBackend:
    """Extractor in a thread of this process.

    Args:
        threads: Number of CPU cores for predictions.
        use_gpu: Whether to predict on a GPU if there is one.
    """

    parallel = 1

    def __init__(self, threads: int, *, use_gpu: bool = True) -> None:
        self._threads = threads
        self._distributed = DistributedContext.current() if use_gpu else DistributedContext()
        self._thread = PredictionThread()
        self._extractor: Extractor | None = None

    async def load(self, folder: Path) -> Task:
        """Load an extractor; the current one predicts until the new one is ready."""
        import torch

        torch.set_num_threads(self._threads)
        # The start of the process: a model that is replaced later has to be freed.
        with suspend_collection() if self._extractor is None else nullcontext():
            extractor = await asyncio.to_thread(Extractor.load, folder, distributed=self._distributed)
        extractor.convert_weights()
        self._extractor = extractor
        return extractor.task

    async def predict(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Predict the annotations of documents, in their order."""
        extractor = self._extractor
        assert extractor is not None
        return await self._thread.call(lambda: extractor.annotate(documents))
