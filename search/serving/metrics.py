"""Metrics of the service in the format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["ServiceMetrics"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SIZES = (1, 2, 4, 8, 16, 32)


class ServiceMetrics:
    """Counters and histograms of one service; they contain no text and no name of a client."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter("clinie_requests", "Answered requests by status.", ["status"], registry=registry)
        self._seconds = Histogram(
            "clinie_request_seconds", "Time from the headers to the answer.", buckets=SECONDS, registry=registry
        )
        self.abandoned = Counter(
            "clinie_abandoned_requests", "Requests whose client disconnected before the answer.", registry=registry
        )
        self.notes = Counter("clinie_notes", "Predicted notes.", registry=registry)
        self.batch_size = Histogram("clinie_batch_notes", "Notes of a batch.", buckets=SIZES, registry=registry)
        self.waiting = Gauge("clinie_waiting_notes", "Notes that wait for a batch.", registry=registry)

    @contextmanager
    def observe_request(self, get_status: Callable[[], int]) -> Iterator[None]:
        """Record the duration and status of a request within this context.

        Args:
            get_status: Returns the status of the answer; 0 if none was sent.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            if status := get_status():
                self._requests.labels(str(status)).inc()
                self._seconds.observe(time.perf_counter() - started)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
