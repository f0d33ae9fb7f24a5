"""CSV, TSV and Parquet files for prediction: each row is a document, and files may be larger than memory.

A file is read twice. The first time checks all rows, so that a fault is found before anything is predicted; the second
time yields the documents in batches.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from clinie_core.data.corpora.files import MAX_LINE_BYTES, UTF_16_MARKS, match_suffix, open_binary
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList, InputError, Problem, fail

__all__ = ["Columns", "Tables", "is_table"]

CSV, TSV, PARQUET = ".csv", ".tsv", ".parquet"
TEXT = "text"
IDS = ("id", "document_id", "doc_id", "note_id", "row_id")
"""Names of the columns with ids; the first that exists is used."""
BATCH_ROWS = 256
BATCH_CHARACTERS = 2**20
"""Bounds of a batch of documents; the longest text can exceed the second."""
PARQUET_ROWS = 64
BUFFER_BYTES = 2**20
"""Number of rows and of bytes that are read from a Parquet file at once."""
BROKEN = re.compile("[\ud800-\udfff]")
"""Characters that represent bytes which are not UTF-8."""
COLUMN_NAME = re.compile(r"\w[\w .-]{0,39}")
NUMBERED = object()
"""Id of a row in a table without a column of ids."""
ENCODING_REMEDY = "convert the file to UTF-8"
Values = tuple[Any, Any]
"""Text and id of a row; None for a missing value, bytes for one that is not UTF-8."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that the user chose.

    Args:
        text: Column of the texts; by default ``text`` in any letter case.
        id: Column of the ids; by default the first of ``IDS``, else rows are numbered.
    """

    text: str | None = None
    id: str | None = None


def is_table(path: Path) -> bool:
    """Return whether a path is a table by its suffix, in any letter case and possibly with ``.gz``."""
    return match_suffix(path.name, (CSV, TSV, PARQUET)) is not None and not path.is_dir()


class Tables:
    """Rows of tables as documents without annotations.

    Args:
        files: The tables.
        columns: The columns to read.
        taken: Ids of other documents, with their places.
    """

    def __init__(self, files: Sequence[Path], columns: Columns, taken: Mapping[str, str] | None = None) -> None:
        self._files = files
        self._columns = columns
        self._taken = dict(taken or {})
        self._count = 0

    def check(self, skipped: list[Problem] | None = None) -> list[str]:
        """Read all rows and return the ids of the documents.

        Args:
            skipped: List for the problems of rows to leave out; None if a problem is an error.

        Raises:
            InputError: With one problem for each file or row that cannot be read, unless it is left out. Also if no
                row remains.
        """
        errors, ids = ErrorList(), []
        for item in self._read():
            if isinstance(item, Problem):
                errors.extend([item])
            else:
                ids.append(item.id)
        if skipped is None or not ids:
            errors.raise_if_any()
            if self._files and not ids:
                fail(str(self._files[0]), "a table without rows", allowed="at least one row")
        else:
            skipped += [replace(problem, severity="skipped") for problem in errors.take_problems()]
        self._count = len(ids)
        return ids

    def read_batches(self) -> Iterator[list[Document]]:
        """Yield the documents of valid rows; call :meth:`check` before.

        Raises:
            InputError: If a file has changed since it was checked.
        """
        batch: list[Document] = []
        count = size = 0
        for item in self._read():
            if isinstance(item, Problem):  # reported by check
                continue
            batch.append(item)
            count, size = count + 1, size + len(item.text)
            if len(batch) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
        if count != self._count:
            fail(str(self._files[0]), "the table has changed while it was read", remedy="repeat the command")

    def _read(self) -> Iterator[Document | Problem]:
        seen = dict(self._taken)
        for file in self._files:
            try:
                yield from _read_rows(file, self._columns, seen)
            except InputError as error:
                yield from error.problems


def _read_rows(file: Path, columns: Columns, seen: dict[str, str]) -> Iterator[Document | Problem]:
    """Yield a document or a problem for each row, and record the ids.

    Raises:
        InputError: If the file or the rest of it cannot be read, or has no such columns.
    """
    match = match_suffix(file.name, (CSV, TSV, PARQUET))
    name, suffix = match or (file.name, CSV)
    rows = _read_parquet(file, columns) if suffix == PARQUET else _read_csv(file, columns, suffix)
    for number, row in enumerate(rows, start=1):
        where = f"{file}: row {number}"
        if isinstance(row, Problem):
            yield replace(row, where=where)
            continue
        text, id_ = row
        item = _build_document(where, text, f"{name}-{number}" if id_ is NUMBERED else id_)
        if isinstance(item, Document):
            if item.id in seen:
                found = f"duplicate id, first at {seen[item.id]}"
                yield Problem(where, found, remedy="give each row its own id")
                continue
            seen[item.id] = where
        yield item


def _build_document(where: str, text: Any, id_: Any) -> Document | Problem:
    if isinstance(text, bytes) or isinstance(id_, bytes):
        return Problem(where, "broken UTF-8", allowed="UTF-8", remedy=ENCODING_REMEDY)
    if not text:
        return Problem(where, "no text", allowed="text in each row")
    if id_ is None or (isinstance(id_, float) and math.isnan(id_)) or not str(id_).strip():
        return Problem(where, "no id", allowed="an id in each row")
    return Document(str(id_), text)


def _find_columns(file: Path, names: Sequence[str], columns: Columns) -> tuple[int, int | None]:
    """Return the indices of the columns of texts and of ids, if any.

    Raises:
        InputError: If a column is missing or ambiguous.
    """
    text = _find_column(file, names, columns.text, (TEXT,), "text-column")
    id_ = _find_column(file, names, columns.id, IDS, "id-column")
    if text is None:
        fail(str(file), f"no column {TEXT}", allowed=_list_names(names), remedy="pass --text-column NAME")
    return text, id_


def _find_column(
    file: Path,
    names: Sequence[str],
    wanted: str | None,
    defaults: Sequence[str],
    option: Literal["text-column", "id-column"],
) -> int | None:
    lowered = [name.strip().casefold() for name in names]
    for choice in defaults if wanted is None else (wanted,):
        found = [at for at, name in enumerate(names) if name == choice] or [
            at for at, name in enumerate(lowered) if name == choice.casefold()
        ]
        if len(found) > 1:
            fail(str(file), f"{len(found)} columns {choice}", allowed="one", remedy=f"rename one, or pass --{option}")
        if found:
            return found[0]
    if wanted is not None:
        fail(str(file), f"no column {wanted}", allowed=_list_names(names), remedy=f"check --{option}")
    return None


def _list_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message, without those that can be texts of a table without a header."""
    return ", ".join(name if COLUMN_NAME.fullmatch(name) else f"({len(name)} characters)" for name in names)


def _read_csv(file: Path, columns: Columns, suffix: str) -> Iterator[Values | Problem]:
    csv.field_size_limit(MAX_LINE_BYTES)  # the default, 128 KiB, is less than a long note
    with open_binary(file) as stream:
        head = stream.read(2**16)
        if head.startswith(UTF_16_MARKS):
            fail(str(file), "a byte order mark of UTF-16", allowed="UTF-8", remedy=ENCODING_REMEDY)
        stream.seek(0)
        # Bytes that are not UTF-8 are kept as surrogates, so that the row of each is found.
        lines = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield from _parse_csv(file, lines, columns, _choose_delimiter(head, suffix))
        finally:
            lines.detach()


def _choose_delimiter(head: bytes, suffix: str) -> str:
    """Return the character between fields; some programs write semicolons instead of commas."""
    names = head.partition(b"\n")[0]
    return "\t" if suffix == TSV else ";" if b";" in names and b"," not in names else ","


def _parse_csv(file: Path, lines: Iterable[str], columns: Columns, delimiter: str) -> Iterator[Values | Problem]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    try:
        names = next(rows, None)
        if not names:
            fail(str(file), "a table without a header", allowed="names of columns in the first line")
        if any(BROKEN.search(name) for name in names):
            fail(str(file), "broken UTF-8 in the header", allowed="UTF-8", remedy=ENCODING_REMEDY)
        text, id_ = _find_columns(file, names, columns)
        for row in rows:
            if not row:
                continue
            number += 1
            if len(row) != len(names):
                allowed = f"{len(names)}, as in the header"
                yield Problem("", f"{len(row)} fields", allowed=allowed, remedy="quote texts that contain delimiters")
                continue
            values = [row[text], row[id_] if id_ is not None else NUMBERED]
            yield values[0] if _is_valid(values[0]) else b"", values[1] if _is_valid(values[1]) else b""
    except csv.Error as error:
        found = f"not a row of a table ({error})"
        fail(f"{file}: row {number + 1}", found, allowed="CSV with quoted fields", remedy="the rest is not read")


def _is_valid(value: object) -> bool:
    return not isinstance(value, str) or value.isascii() or not BROKEN.search(value)


def _read_parquet(file: Path, columns: Columns) -> Iterator[Values | Problem]:
    try:
        # By default, pyarrow reads a whole column before the first row.
        with pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
            names = table.schema_arrow.names
            text, id_ = _find_columns(file, names, columns)
            chosen = [names[text], *([names[id_]] if id_ is not None else [])]
            if not _is_text(table.schema_arrow.field(names[text]).type):
                found = f"the column {names[text]} contains {table.schema_arrow.field(names[text]).type}"
                fail(str(file), found, allowed="strings", remedy="pass --text-column NAME")
            for batch in table.iter_batches(PARQUET_ROWS, columns=chosen, use_threads=False):
                texts = _decode(batch.column(names[text]))
                ids = _decode(batch.column(names[id_])) if id_ is not None else [NUMBERED] * len(texts)
                yield from zip(texts, ids, strict=True)
    except (pa.ArrowException, OSError) as error:
        found = f"not a Parquet file that can be read ({type(error).__name__})"
        fail(str(file), found, allowed="Parquet", remedy="check the file")


def _is_text(type_: Any) -> bool:
    value = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _decode(column: Any) -> list[Any]:
    """Return the values of a column; bytes for a string that is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        return list(column.to_pylist())
    raw = column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else _decode_value(value) for value in raw]


def _decode_value(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
