"""A registered model on Ray Serve; concurrent requests are predicted in one batch.

This module does not postpone the evaluation of annotations: FastAPI reads them in the replica, where the names of
this module are not defined.
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

from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.corpora.line_format import DocumentLines
from clinie_core.data.document import Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor, annotations_to_json
from clinie_core.modeling.distributed import DistributedContext
from search.cluster.devices import get_cluster_gpus, get_granted_device, limit_memory
from search.cluster.session import ray_session
from search.serving.api import Extraction, Health, Notes, PredictionFailed, Predictions, TooLarge, make_api
from search.trials.failure import failure_reason

__all__ = ["serve_model"]

BATCH = 16
BATCH_WAIT_SECONDS = 0.0
"""No waiting time: requests that arrive during a prediction form the next batch."""
ROUTE = "/"


def _make_application(name: str, folder: str, max_characters: int, threads: int, gpus: float) -> Any:
    """Return the Serve application of one model."""
    api = make_api(max_characters)

    @serve.deployment(ray_actor_options={"num_cpus": threads, "num_gpus": gpus}, max_ongoing_requests=256)
    @serve.ingress(api)
    class Service:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(threads)
            device = get_granted_device()
            limit_memory(device, gpus)
            self._extractor = Extractor.load(Path(folder), distributed=DistributedContext(device=device))

        @api.get("/healthz")
        async def healthz(self) -> Health:
            """Return the status once the model is loaded."""
            return Health(status="ok", model=name)

        @api.post("/predict")
        async def predict(self, notes: Notes) -> Predictions:
            """Extract concepts and relations from notes."""
            for number, text in enumerate(notes.texts):
                if len(text) > max_characters:
                    raise TooLarge(f"texts.{number} has {len(text):,} characters; at most {max_characters:,}")
            documents = [self._read_document(number, text) for number, text in enumerate(notes.texts)]
            annotations = await asyncio.gather(*(self._annotate(document) for document in documents))
            return Predictions(model=name, documents=[Extraction.model_validate(item) for item in annotations])

        def _read_document(self, number: int, text: str) -> Document:
            if self._extractor.task != "relations":
                return Document(f"text-{number}", text)
            try:
                return Jsonl().parse(DocumentLines(f"texts.{number}", 1, [text]))
            except InputError as error:
                from fastapi.exceptions import RequestValidationError

                message = "; ".join(problem.found for problem in error.problems)
                fault = {"loc": ("body", "texts", number), "msg": message, "type": "document", "input": None}
                raise RequestValidationError([fault]) from None

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_SECONDS)  # type: ignore[untyped-decorator]
        async def _annotate(self, documents: list[Document]) -> list[dict[str, Any]]:
            try:
                annotated = await asyncio.to_thread(self._extractor.annotate, documents)
            except Exception as error:  # its message may quote a note, and Serve would log it
                raise PredictionFailed(failure_reason(error, allow_text=False)) from None
            return [annotations_to_json(document) for document in annotated]

    return Service.bind()  # type: ignore[attr-defined]  # the decorators turn the class into a deployment


def serve_model(
    name: str,
    folder: Path,
    home: Path,
    *,
    host: str,
    port: int,
    max_characters: int,
    threads: int,
    gpus: float | None = None,
    ready: Any,
) -> None:
    """Serve a model until SIGINT or SIGTERM.

    Args:
        name: Name of the model in responses.
        folder: Folder of its extractor.
        home: Home folder; Ray's working folder.
        host: Address of the network interface to listen on.
        port: Port to listen on.
        max_characters: Maximum number of characters in one note.
        threads: Number of CPU cores for predictions.
        gpus: GPUs for predictions, possibly a fraction; None for one GPU if there is one.
        ready: Callback, called once the service answers requests.
    """
    stop = threading.Event()
    with ray_session(home):
        if gpus is None:
            gpus = 1.0 if get_cluster_gpus() else 0.0
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(http_options=HTTPOptions(host=host, port=port))
        serve.run(
            _make_application(name, str(folder), max_characters, threads, gpus),
            route_prefix=ROUTE,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # after Ray has started, because it replaces signal handlers
            signal.signal(number, lambda *_: stop.set())
        ready()
        stop.wait()
        serve.shutdown()
