"""Large JSON files one value at a time, by ijson, with errors that name a line and quote nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import ijson

from clinie_core.errors import Problem, fail

__all__ = ["ObjectLocator", "read_items", "read_pairs"]

MAX_DEPTH = 100
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]')
"""A string, or a bracket outside of any; neither crosses a line."""


class ObjectLocator:
    """Knows the line on which each object of a file begins, by reading it once more when a problem asks.

    Args:
        stream: The file; where it is read on is left as it was.
        where: Its name.
        depth: How many brackets are open around the objects that are meant.
    """

    def __init__(self, stream: BinaryIO, where: str, depth: int) -> None:
        self._stream = stream
        self._where = where
        self._depth = depth
        self._lines: list[int] | None = None

    def locate(self, problems: Iterable[Problem], number: int) -> Iterator[Problem]:
        """Put the line into what is wrong with an object, given by its number from 0."""
        if self._lines is None:
            at = self._stream.tell()
            self._stream.seek(0)
            self._lines = list(self._find_object_lines())
            self._stream.seek(at)
        line = self._lines[number] if number < len(self._lines) else 1
        for problem in problems:
            yield replace(problem, where=problem.where.replace(self._where, f"{self._where}:{line}", 1))

    def _find_object_lines(self) -> Iterator[int]:
        level = 0
        for number, line in enumerate(self._stream, start=1):
            for match in TOKEN.finditer(line):
                bracket = match[0]
                if bracket == b"{" and level == self._depth:
                    yield number
                level += (bracket in b"{[") - (bracket in b"}]")


def read_items(stream: BinaryIO, where: str, path: str) -> Iterator[Any]:
    """The values under a path, in ijson's notation (``documents.item``).

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _map_json_errors(ijson.items(_parse_events(stream, where), path), stream, where)


def read_pairs(stream: BinaryIO, where: str) -> Iterator[tuple[str, Any]]:
    """The keys and values of the one object that the file is.

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _map_json_errors(ijson.kvitems(_parse_events(stream, where), ""), stream, where)


def _parse_events(stream: BinaryIO, where: str) -> Iterator[Any]:
    """Ijson's events; what nests without end would take memory in the square of its depth."""
    events: Iterator[Any] = ijson.parse(_limit_depth(ijson.basic_parse(stream, use_float=True), where))
    return events


def _limit_depth(events: Iterator[tuple[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    depth = 0
    for event in events:
        if event[0].startswith("start_"):
            depth += 1
            if depth > MAX_DEPTH:
                fail(f"{where}:1", f"JSON nested deeper than {MAX_DEPTH}", remedy="write the file again")
        elif event[0].startswith("end_"):
            depth -= 1
        yield event


def _map_json_errors(values: Iterator[Any], stream: BinaryIO, where: str) -> Iterator[Any]:
    try:
        yield from values
    except (ijson.JSONError, UnicodeDecodeError, RecursionError):
        fail(
            _locate_syntax_error(stream, where),
            "not valid JSON in UTF-8",
            remedy="write the file again, or cut what is broken",
        )


def _locate_syntax_error(stream: BinaryIO, where: str) -> str:
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
