"""What the service takes and gives: requests, answers, limits, and errors that never repeat a note.

Its OpenAPI description is at ``/openapi.json`` and, for people, at ``/docs``.
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
"""Most notes in one request."""
JSON_TYPES = ("application/json", "application/json;")


class Notes(BaseModel):
    """A request: the notes to read."""

    model_config = ConfigDict(extra="forbid")

    texts: list[str] = Field(
        min_length=1,
        max_length=MAX_NOTES,
        description="Notes as text. A model of relations alone takes documents with concepts, lines of clinie's JSONL.",
        examples=[["Started on metformin 500 mg BID."]],
    )


class Concept(BaseModel):
    """A concept that was found; offsets are code points of the text, half-open."""

    id: str
    type: str
    start: int
    end: int


class Relation(BaseModel):
    """A relation between two concepts, or two terminology entries, by their ids."""

    type: str
    head: str
    tail: str


class Extraction(BaseModel):
    """What was found in one note."""

    concepts: list[Concept]
    relations: list[Relation]
    entity_relations: list[Relation] = []


class Predictions(BaseModel):
    """An answer: for each note what was found, in the order of the request."""

    model: str
    documents: list[Extraction]


class Health(BaseModel):
    """Whether the service is ready."""

    status: str
    model: str


class TooLarge(Exception):
    """A request or a note is larger than the service takes; the message says which and the limit."""


class PredictionFailed(Exception):
    """The model failed; the message says where and holds no text."""


def make_api(max_characters: int) -> FastAPI:
    """The application without its routes: its limits and the way it says what is wrong.

    Args:
        max_characters: Most characters in one note.
    """
    api = FastAPI(title="clinie", description="Concepts and relations in clinical text.", version="1")
    # A character takes at most twelve bytes in JSON (an escaped surrogate pair).
    max_bytes = 12 * max_characters * MAX_NOTES

    @api.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST":
            kind = request.headers.get("content-type", "")
            if not kind.startswith("application/json"):
                return _error(415, f"content type {kind or 'missing'!r}; send application/json")
            length = request.headers.get("content-length", "")
            if length.isdigit() and int(length) > max_bytes:
                return _error(413, f"{int(length):,} bytes; at most {max_bytes:,}")
        return await call_next(request)

    @api.exception_handler(RequestValidationError)
    async def wrong_body(request: Request, error: RequestValidationError) -> Response:
        # FastAPI's own answer would repeat the body, which is a note.
        faults = [{"where": ".".join(str(p) for p in e["loc"]), "what": e["msg"]} for e in error.errors()]
        return _error(422, 'the body is not {"texts": ["..."]}', faults=faults)

    @api.exception_handler(TooLarge)
    async def too_large(request: Request, error: TooLarge) -> Response:
        return _error(413, str(error))

    @api.exception_handler(PredictionFailed)
    async def failed(request: Request, error: PredictionFailed) -> Response:
        return _error(500, str(error))

    return api


def _error(status: int, message: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": message, **more}, status_code=status)
