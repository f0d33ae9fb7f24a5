"""A served model: loads a version, predicts, and reloads when the alias of the registry moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from clinie_core.config import Task
from clinie_core.data.document import Document
from search.promotion.model_source import ModelFiles, ModelSource
from search.serving.batching import DynamicBatcher
from search.serving.metrics import ServiceMetrics
from search.trials.failure import failure_reason

__all__ = ["Backend", "Service"]

POLL_SECONDS = 5.0
"""Time between two requests for the version of an alias."""

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Model in this process or in others."""

    parallel: int
    """Number of batches that can be predicted at the same time."""

    async def load(self, folder: Path) -> Task:
        """Load an extractor, which replaces the current one once it is ready; return its task."""

    async def predict(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Predict the annotations of documents, in their order."""


class Service:
    """A registered model with a queue of documents.

    Args:
        source: The registered model.
        files: The version to load first.
        backend: Runs the model.
        metrics: Receives the sizes of batches and of the queue.
        follow: Whether to load another version when the alias moves to it.
        poll_seconds: Time between two requests for the version of the alias.
    """

    def __init__(
        self,
        source: ModelSource,
        files: ModelFiles,
        backend: Backend,
        metrics: ServiceMetrics,
        *,
        follow: bool = False,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._source = source
        self._files = files
        self._backend = backend
        self.metrics = metrics
        """Metrics of the service."""
        self._follow = follow
        self._poll_seconds = poll_seconds
        self._batcher = DynamicBatcher(backend.predict, parallel=backend.parallel, on_batch=self._observe_batch)
        metrics.waiting.set_function(lambda: self._batcher.waiting)
        self.name = source.name
        """Name of the model in answers."""
        self.version = files.version
        """Version that answers requests."""
        self.registry_version = files.version
        """Version that the registry names; it differs from :attr:`version` after the alias has moved."""
        self.task: Task = "concepts"
        """Task of the loaded model."""
        self.draining = False
        """Whether the service shuts down."""

    @property
    def accepts_requests(self) -> bool:
        """True if a new request would be accepted."""
        return not self.draining and not self._batcher.overloaded

    async def load(self) -> None:
        """Load the first version."""
        self.task = await self._backend.load(self._files.folder)

    async def predict(self, documents: Sequence[Document]) -> list[Document]:
        """Predict the annotations of a request's documents; see :meth:`DynamicBatcher.predict`."""
        found = await self._batcher.predict(documents)
        self.metrics.notes.inc(len(documents))
        return found

    async def watch_alias(self) -> None:
        """Compare the registry's version with the loaded one at intervals, until this task is cancelled."""
        while self._source.has_alias:
            await asyncio.sleep(self._poll_seconds)
            try:
                self.registry_version = await asyncio.to_thread(self._source.find_version)
                if self._follow and self.registry_version != self.version:
                    files = await asyncio.to_thread(self._source.fetch)
                    self.task = await self._backend.load(files.folder)
                    self.version = self.registry_version = files.version
            except Exception as error:  # the loaded version keeps serving without the registry
                logger.warning("the registry's version is unknown: %s", failure_reason(error, allow_text=False))

    def _observe_batch(self, size: int) -> None:
        self.metrics.batch_size.observe(size)
