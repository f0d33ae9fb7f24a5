"""A registered model on Ray Serve: requests that come together are predicted in one batch.

Annotations are evaluated here, not kept as text: FastAPI reads them in the replica, where this module's names
have not travelled.
"""

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import asyncio
import logging
import signal
import threading
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions

from clinie_core.data.corpora.corpus_format import Piece
from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.document import Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor, annotations_to_json
from search.cluster.session import ray_session
from search.serving.api import Extraction, Health, Notes, PredictionFailed, Predictions, TooLarge, make_api
from search.trials.failure import failure_reason

__all__ = ["serve_model"]

BATCH = 16
BATCH_WAIT_SECONDS = 0.0
"""None: what comes while a batch is predicted is the next batch."""
ROUTE = "/"


def _application(name: str, folder: str, max_characters: int, threads: int) -> Any:
    """The Serve application of one model."""
    api = make_api(max_characters)

    @serve.deployment(ray_actor_options={"num_cpus": threads}, max_ongoing_requests=256)
    @serve.ingress(api)
    class Service:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(threads)
            self._extractor = Extractor.load(Path(folder))

        @api.get("/healthz")
        async def healthz(self) -> Health:
            """Whether the model is loaded."""
            return Health(status="ok", model=name)

        @api.post("/predict")
        async def predict(self, notes: Notes) -> Predictions:
            """Extract concepts and relations from notes."""
            for number, text in enumerate(notes.texts):
                if len(text) > max_characters:
                    raise TooLarge(f"texts.{number} has {len(text):,} characters; at most {max_characters:,}")
            documents = [self._document(number, text) for number, text in enumerate(notes.texts)]
            found = await asyncio.gather(*(self._batched(document) for document in documents))
            return Predictions(model=name, documents=[Extraction.model_validate(item) for item in found])

        def _document(self, number: int, text: str) -> Document:
            if self._extractor.task != "relations":
                return Document(f"text-{number}", text)
            try:
                return Jsonl().parse(Piece(f"texts.{number}", 1, [text]))
            except InputError as error:
                from fastapi.exceptions import RequestValidationError

                what = "; ".join(problem.found for problem in error.problems)
                fault = {"loc": ("body", "texts", number), "msg": what, "type": "document", "input": None}
                raise RequestValidationError([fault]) from None

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_SECONDS)  # type: ignore[untyped-decorator]
        async def _batched(self, documents: list[Document]) -> list[dict[str, Any]]:
            try:
                annotated = await asyncio.to_thread(self._extractor.annotate, documents)
            except Exception as error:  # its own words may quote a note, and Serve would log them
                raise PredictionFailed(failure_reason(error, allow_text=False)) from None
            return [annotations_to_json(document) for document in annotated]

    return Service.bind()  # type: ignore[attr-defined]  # what the decorators make of the class


def serve_model(
    name: str, folder: Path, home: Path, *, host: str, port: int, max_characters: int, threads: int, ready: Any
) -> None:
    """Serve a model until a signal ends it.

    Args:
        name: What the answers call it.
        folder: Its extractor.
        home: Ray's working folder.
        host: The interface to listen on.
        port: Its port.
        max_characters: Most characters in one note.
        threads: Cores that predict.
        ready: Called once the service answers.
    """
    stop = threading.Event()
    with ray_session(home):
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(http_options=HTTPOptions(host=host, port=port))
        serve.run(
            _application(name, str(folder), max_characters, threads),
            route_prefix=ROUTE,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # now, since Ray takes signals over when it starts
            signal.signal(number, lambda *_: stop.set())
        ready()
        stop.wait()
        serve.shutdown()
