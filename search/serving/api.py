"""The HTTP interface of the service: routes, requests, responses, and errors that never quote a note.

The service publishes its OpenAPI description at ``/openapi.json`` and as a page at ``/docs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.corpora.line_format import DocumentLines
from clinie_core.data.document import Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import annotations_to_json
from search.serving.batching import Overloaded, PredictionFailed
from search.serving.description import render_description
from search.serving.guard import make_error
from search.serving.service import Service

__all__ = ["MAX_NOTES", "Extraction", "Health", "Notes", "Predictions", "make_api"]

MAX_NOTES = 256
"""Maximum number of notes in one request."""
SHOWN_FAULTS = 10
RETRY_SECONDS = 1
"""Time after which a client that was rejected for overload may try again."""


class Notes(BaseModel):
    """A request with the notes to predict."""

    model_config = ConfigDict(extra="forbid")

    texts: list[str] = Field(
        min_length=1,
        max_length=MAX_NOTES,
        description="Notes as plain text. A model of task relations takes lines of clinie's JSONL with concepts.",
        examples=[["Started on metformin 500 mg BID."]],
    )


class Concept(BaseModel):
    """A predicted concept; offsets are half-open and count code points of the text."""

    id: str
    type: str
    start: int
    end: int


class Relation(BaseModel):
    """A predicted relation between two concepts, or two terminology entries, given by their ids."""

    type: str
    head: str
    tail: str


class Extraction(BaseModel):
    """The predictions for one note."""

    concepts: list[Concept]
    relations: list[Relation]
    entity_relations: list[Relation] = []


class Predictions(BaseModel):
    """A response with one entry per note, in the order of the request."""

    model: str
    version: str
    documents: list[Extraction]


class Health(BaseModel):
    """The status of a running service.

    ``registry_version`` differs from ``version`` if the alias has moved since the model was loaded.
    """

    status: str
    model: str
    version: str
    registry_version: str


class Error(BaseModel):
    """An error; neither the message nor the faults quote the request."""

    error: str
    faults: list[dict[str, str]] = []


ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Error, "description": "The token is missing or wrong."},
    408: {"model": Error, "description": "The body did not arrive in time."},
    413: {"model": Error, "description": "The body or a note is too large."},
    415: {"model": Error, "description": "The content type is not application/json."},
    421: {"model": Error, "description": "The Host header names another host."},
    422: {"model": Error, "description": "The body is not valid."},
    500: {"model": Error, "description": "The model failed on one of the notes."},
    503: {"model": Error, "description": "Too many notes are waiting; see Retry-After."},
    504: {"model": Error, "description": "The prediction took too long."},
}


def make_api(service: Service, max_characters: int) -> FastAPI:
    """Return the application with its routes and error handlers.

    Args:
        service: The served model.
        max_characters: Maximum number of characters in one note.
    """
    # FastAPI's own page loads its scripts from the internet.
    api = FastAPI(
        title="clinie",
        description="Concepts and relations in clinical text.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )

    @api.get("/healthz")
    async def healthz() -> Health:
        """Return the status of the process; it also answers while requests are waiting."""
        status = "draining" if service.draining else "ok"
        return Health(
            status=status, model=service.name, version=service.version, registry_version=service.registry_version
        )

    @api.get("/readyz", responses={503: ERRORS[503]})
    async def readyz() -> Response:
        """Return whether a new request would be accepted: 200, or 503 during overload and shutdown."""
        if service.accepts_requests:
            return JSONResponse({"status": "ready"})
        return make_error(503, "not ready", {"Retry-After": str(RETRY_SECONDS)})

    @api.get("/metrics", response_class=Response)
    async def publish_metrics() -> Response:
        """Return metrics in the format of Prometheus."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @api.post("/predict", responses=ERRORS)
    async def predict(notes: Notes) -> Predictions:
        """Extract concepts and relations from notes."""
        for number, text in enumerate(notes.texts):
            if len(text) > max_characters:
                raise _TooLarge(f"texts.{number} has {len(text):,} characters; at most {max_characters:,}")
        documents = _read_documents(notes.texts, annotated=service.task == "relations")
        version = service.version
        found = await service.predict(documents)
        extractions = [Extraction.model_validate(annotations_to_json(document)) for document in found]
        return Predictions(model=service.name, version=version, documents=extractions)

    @api.get("/docs", include_in_schema=False)
    async def describe() -> HTMLResponse:
        """Return a page that describes the routes; it needs no internet."""
        return HTMLResponse(render_description(api.openapi()))

    _add_error_handlers(api)
    return api


class _TooLarge(Exception):
    """A note exceeds the size limit; the message names the note and the limit."""


class _InvalidNotes(Exception):
    """Notes that cannot be read, with one fault for each."""

    def __init__(self, faults: list[dict[str, str]]) -> None:
        self.faults = faults


def _add_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(RequestValidationError)
    async def answer_invalid_body(request: Request, error: RequestValidationError) -> Response:
        # FastAPI's default response would quote the body, which contains notes.
        return _make_validation_error(error.errors())

    @api.exception_handler(_InvalidNotes)
    async def answer_invalid_notes(request: Request, error: _InvalidNotes) -> Response:
        return make_error(422, "some notes cannot be read", faults=error.faults[:SHOWN_FAULTS])

    @api.exception_handler(_TooLarge)
    async def answer_too_large(request: Request, error: _TooLarge) -> Response:
        return make_error(413, str(error))

    @api.exception_handler(Overloaded)
    async def answer_overload(request: Request, error: Overloaded) -> Response:
        return make_error(503, "too many notes are waiting", {"Retry-After": str(RETRY_SECONDS)})

    @api.exception_handler(PredictionFailed)
    async def answer_failure(request: Request, error: PredictionFailed) -> Response:
        return make_error(500, str(error))

    @api.exception_handler(HTTPException)
    async def answer_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's answer to JSON that is too deeply nested or not UTF-8
            return make_error(422, 'the body is not {"texts": ["..."]}')
        return make_error(error.status_code, str(error.detail))


def _make_validation_error(errors: Sequence[Any]) -> Response:
    """Return the answer to an invalid body; keys of the request may be patient text, so only their number is named."""
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    others = [error for error in errors if error["type"] != "extra_forbidden"]
    faults = [{"where": _describe_location(e["loc"]), "what": str(e["msg"])} for e in others[:SHOWN_FAULTS]]
    if unknown:
        faults.append({"where": "body", "what": f"{len(unknown):,} unknown keys"})
    return make_error(422, 'the body is not {"texts": ["..."]}', faults=faults)


def _describe_location(location: Sequence[Any]) -> str:
    """Return the location of a fault, from the schema's own names and positions."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in ("body", "texts"))


def _read_documents(texts: Sequence[str], *, annotated: bool) -> list[Document]:
    """Convert the notes of a request to documents.

    Args:
        texts: The notes.
        annotated: Whether they are lines of clinie's JSONL with concepts.

    Raises:
        _InvalidNotes: If a note is not valid text, or not a valid line.
    """
    documents, faults = [], []
    for number, text in enumerate(texts):
        where = f"body.texts.{number}"
        if not _is_unicode(text):
            faults.append({"where": where, "what": "a surrogate code point without its pair, which is not valid text"})
        elif not annotated:
            documents.append(Document(f"text-{number}", text))
        else:
            try:
                documents.append(Jsonl().parse(DocumentLines(f"texts.{number}", 1, [text])))
            except InputError as error:
                faults.append({"where": where, "what": "; ".join(problem.found for problem in error.problems)})
    if faults:
        raise _InvalidNotes(faults)
    return documents


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
