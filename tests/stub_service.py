"""A service whose model is replaced by rules, so that tests can delay or fail a prediction; run as a program.

    python -m tests.stub_service PORT FOLDER [TOKEN FILE]

A note "wait N" is predicted after N seconds, "fail" raises an error that quotes the note, any other note has one
concept that covers it. TOKEN is required by the service, and FILE has the certificate and the key for TLS.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlflow.tracking import MlflowClient

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, Span
from search.promotion.model_source import ModelFiles, ModelSource
from search.serving import server
from search.serving.batching import PredictionThread
from search.serving.guard import Limits
from search.serving.metrics import ServiceMetrics
from search.serving.server import ServerSettings, open_port, run_server
from search.serving.service import Service

LIMIT_SECONDS = 4.0
"""Time to send headers or a body: short for a test, and long enough for a client on a busy machine."""


class Rules:
    """Backend that follows the rules of this module, in a thread as the real one."""

    parallel = 1

    def __init__(self) -> None:
        self._thread = PredictionThread()

    async def load(self, folder: Path) -> Task:
        """Load nothing."""
        return "concepts"

    async def predict(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Predict the annotations of documents, in their order."""
        return await self._thread.call(lambda: [annotate(document) for document in documents])


def annotate(document: Document) -> Document:
    """Return the document with the concept that the rules define."""
    text = document.text
    if match := re.match(r"wait ([\d.]+)", text):
        time.sleep(float(match[1]))
    if "fail" in text:
        raise RuntimeError(f"cannot read {text}")
    return Document(document.id, text, (Concept("T1", "NOTE", (Span(0, len(text)),)),))


def main() -> None:
    """Serve until SIGTERM."""
    server.HEADER_SECONDS = LIMIT_SECONDS
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    source = ModelSource("stub/1", MlflowClient("http://127.0.0.1:9"))
    limits = Limits(max_bytes=100_000, body_seconds=LIMIT_SECONDS, answer_seconds=20.0)
    settings = ServerSettings(limits, max_characters=10_000, drain_seconds=10.0)
    if len(sys.argv) > 3:
        limits = replace(limits, token=sys.argv[3], answer_seconds=1.0)
        settings = replace(settings, limits=limits, certificate=Path(sys.argv[4]), key=Path(sys.argv[4]))
    service = Service(source, ModelFiles("1", folder), Rules(), ServiceMetrics())
    with open_port("127.0.0.1", port) as listener:
        run_server(listener, service, settings, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
