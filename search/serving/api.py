"""The HTTP interface of the service: requests, responses, size limits, and errors that never quote a note.

The service publishes its OpenAPI description at ``/openapi.json`` and as a page at ``/docs``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MAX_NOTES", "Extraction", "Health", "Notes", "PredictionFailed", "Predictions", "TooLarge", "make_api"]

MAX_NOTES = 256
"""Maximum number of notes in one request."""


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
    documents: list[Extraction]


class Health(BaseModel):
    """The status of a service that is ready."""

    status: str
    model: str


class TooLarge(Exception):
    """A note exceeds the size limit; the message names the note and the limit."""


class PredictionFailed(Exception):
    """The model failed; the message gives the error's type and location without any text."""


def make_api(max_characters: int) -> FastAPI:
    """Return the application with its size limits and error handlers, without routes.

    Args:
        max_characters: Maximum number of characters in one note.
    """
    api = FastAPI(title="clinie", description="Concepts and relations in clinical text.", version="1")
    # A character takes at most twelve bytes in JSON, as an escaped surrogate pair.
    max_bytes = 12 * max_characters * MAX_NOTES

    @api.middleware("http")
    async def check_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST":
            kind = request.headers.get("content-type", "")
            if not kind.startswith("application/json"):
                return _make_error(415, f"content type {kind or 'missing'!r}; send application/json")
            length = request.headers.get("content-length", "")
            if length.isdigit() and int(length) > max_bytes:
                return _make_error(413, f"{int(length):,} bytes; at most {max_bytes:,}")
        return await call_next(request)

    @api.exception_handler(RequestValidationError)
    async def answer_invalid_body(request: Request, error: RequestValidationError) -> Response:
        # FastAPI's default response would quote the body, which contains notes.
        faults = [{"where": ".".join(str(p) for p in e["loc"]), "what": e["msg"]} for e in error.errors()]
        return _make_error(422, 'the body is not {"texts": ["..."]}', faults=faults)

    @api.exception_handler(TooLarge)
    async def answer_too_large(request: Request, error: TooLarge) -> Response:
        return _make_error(413, str(error))

    @api.exception_handler(PredictionFailed)
    async def answer_failure(request: Request, error: PredictionFailed) -> Response:
        return _make_error(500, str(error))

    return api


def _make_error(status: int, message: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": message, **more}, status_code=status)
