"""Incremental reading of large JSON files by ijson, with errors that name a line and quote no content."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import ijson

from clinie_core.errors import Problem, fail

__all__ = ["ObjectLocator", "find_key", "read_items", "read_pairs"]

MAX_DEPTH = 100
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]')
"""A string, or a bracket outside strings; neither spans lines."""


class ObjectLocator:
    """Line numbers of the objects of a file, found by a second pass at the first problem.

    Args:
        stream: The file; its position is restored after the second pass.
        where: The file's name.
        depth: Number of open brackets around the objects.
    """

    def __init__(self, stream: BinaryIO, where: str, depth: int) -> None:
        self._stream = stream
        self._where = where
        self._depth = depth
        self._lines: list[int] | None = None

    def locate(self, problems: Iterable[Problem], number: int) -> Iterator[Problem]:
        """Add the line number of an object to its problems.

        Args:
            problems: Problems of one object.
            number: 0-based index of the object.
        """
        problems = list(problems)
        if problems and self._lines is None:
            at = self._stream.tell()
            self._stream.seek(0)
            self._lines = list(self._find_object_lines())
            self._stream.seek(at)
        lines = self._lines or []
        line = lines[number] if number < len(lines) else 1
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
    """Yield the values under a path, of each of the values that a file contains (one per line in JSON Lines).

    Args:
        stream: The file.
        where: The file's name, for messages.
        path: A path in ijson's notation, such as ``documents.item``.

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _map_json_errors(ijson.items(_parse_events(stream, where), path), stream, where)


def find_key(stream: BinaryIO, where: str, keys: Container[tuple[str, str]]) -> tuple[str, str] | None:
    """Find the first of some keys in a file, and restore the position in the file.

    Args:
        stream: The file.
        where: The file's name, for messages.
        keys: Pairs of the path of an object, in ijson's notation, and one of its keys.

    Returns:
        The pair found; None if the file has none of them.

    Raises:
        InputError: If the file is not valid JSON up to the key.
    """
    at = stream.tell()
    events = _map_json_errors(_parse_events(stream, where), stream, where)
    found = next(((path, key) for path, event, key in events if event == "map_key" and (path, key) in keys), None)
    stream.seek(at)
    return found


def read_pairs(stream: BinaryIO, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a file that contains one object.

    Raises:
        InputError: If the file is not valid JSON.
    """
    yield from _map_json_errors(ijson.kvitems(_parse_events(stream, where), ""), stream, where)


def _parse_events(stream: BinaryIO, where: str) -> Iterator[Any]:
    """Return ijson's events with limited depth, since ijson's memory grows with the square of the depth."""
    events: Iterator[Any] = ijson.parse(
        _limit_depth(ijson.basic_parse(stream, use_float=True, multiple_values=True), where)
    )
    return events


def _limit_depth(events: Iterator[tuple[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    depth = 0
    for event in events:
        if event[0].startswith("start_"):
            depth += 1
            if depth > MAX_DEPTH:
                fail(f"{where}:1", f"JSON nested deeper than {MAX_DEPTH}", remedy="flatten the file")
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
            remedy="export the file again, or remove the invalid part",
        )


def _locate_syntax_error(stream: BinaryIO, where: str) -> str:
    """Return file and line of a syntax error, found by parsing the whole file with the standard library."""
    stream.seek(0)
    try:
        text = stream.read().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        stream.seek(0)
        return f"{where}:{stream.read(error.start).count(10) + 1}"
    decoder, at = json.JSONDecoder(), 0
    try:
        while at < len(text):  # a file can contain several values
            at = at + 1 if text[at].isspace() else decoder.raw_decode(text, at)[1]
    except json.JSONDecodeError as error:
        return f"{where}:{error.lineno}"
    except (RecursionError, ValueError):  # valid JSON beyond the parser's limits, such as a number of 5000 digits
        return f"{where}:1"
    return f"{where}:1"
