"""Large JSON files one value at a time, by ijson, with errors that name a line and quote nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from clinie_core.errors import fail

__all__ = ["items", "pairs"]

MAX_DEPTH = 100


def items(stream: BinaryIO, where: str, path: str) -> Iterator[Any]:
    """The values under a path, in ijson's notation (``documents.item``).

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _guarded(ijson.items(_events(stream, where), path), stream, where)


def pairs(stream: BinaryIO, where: str) -> Iterator[tuple[str, Any]]:
    """The keys and values of the one object that the file is.

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _guarded(ijson.kvitems(_events(stream, where), ""), stream, where)


def _events(stream: BinaryIO, where: str) -> Iterator[Any]:
    """Ijson's events; what nests without end would take memory in the square of its depth."""
    events: Iterator[Any] = ijson.parse(_shallow(ijson.basic_parse(stream, use_float=True), where))
    return events


def _shallow(events: Iterator[tuple[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    depth = 0
    for event in events:
        if event[0].startswith("start_"):
            depth += 1
            if depth > MAX_DEPTH:
                fail(f"{where}:1", f"JSON nested deeper than {MAX_DEPTH}", "", "write the file again")
        elif event[0].startswith("end_"):
            depth -= 1
        yield event


def _guarded(values: Iterator[Any], stream: BinaryIO, where: str) -> Iterator[Any]:
    try:
        yield from values
    except (ijson.JSONError, UnicodeDecodeError, RecursionError):
        fail(_place(stream, where), "not valid JSON in UTF-8", "", "write the file again, or cut what is broken")


def _place(stream: BinaryIO, where: str) -> str:
    """Where a broken file breaks, by reading it again as a whole."""
    stream.seek(0)
    try:
        json.loads(stream.read())
    except json.JSONDecodeError as error:
        return f"{where}:{error.lineno}"
    except UnicodeDecodeError as error:
        stream.seek(0)
        return f"{where}:{stream.read(error.start).count(10) + 1}"
    except (RecursionError, ValueError):  # valid to the grammar, and still nothing that can be read
        return f"{where}:1"
    return f"{where}:1"
