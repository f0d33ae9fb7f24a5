"""The ledger's journal file: one JSON record per line, each with a checksum of the line before it.

The checksums show lines that were changed, removed or cut. A damaged journal is neither read nor written, because its
records number trials by their order: a missing line would assign results to another trial.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file

from clinie_core.errors import Problem, fail
from search.ledger.sharing import SharedValues

__all__ = ["REPAIR", "Journal", "LedgerUnavailable", "Line", "find_faults", "link", "open_journal", "read_lines"]

MAX_LINE_BYTES = 1 << 20
"""Expected upper bound on the length of a line, which holds one attribute or one value of a trial."""
PREVIOUS = "previous"
"""Key of a record: the checksum of the line before it. Records of earlier versions of clinie have none."""
REPAIR = "restore the file from a backup, or run: clinie repair --home"
CREATE_STUDY, CREATE_TRIAL, SET_TRIAL_ATTRIBUTE = 0, 4, 8
LAST_OPERATION = 10


class LedgerUnavailable(RuntimeError):
    """The ledger cannot be read or written; the message has its place and a remedy."""


@dataclass(frozen=True)
class Line:
    """A line of a journal.

    Args:
        number: 1-based number.
        content: Its bytes, without the line end.
        record: The record; None if the line is not a record.
    """

    number: int
    content: bytes
    record: dict[str, Any] | None

    @classmethod
    def parse(cls, number: int, content: bytes) -> Line:
        """Parse a line of a journal."""
        try:
            value = json.loads(content)
        except ValueError:
            return cls(number, content, None)
        operation = value.get("op_code") if isinstance(value, dict) else None
        is_record = type(operation) is int and 0 <= operation <= LAST_OPERATION
        return cls(number, content, value if is_record else None)


def open_journal(file: Path) -> Journal:
    """Open a journal file, which is created if it is missing.

    An incomplete last line is removed: a full disk or a crash has left it, and its write was never confirmed.

    Raises:
        InputError: If the file is damaged, or cannot be read or created.
    """
    try:
        if file.exists():
            _truncate_incomplete_line(file)
            fault = next(find_faults(read_lines(file), file), None)
            if fault is not None:
                fail(fault.where, fault.found, remedy=f"{REPAIR} {file.parent}")
        return Journal(str(file))
    except OSError as error:
        return fail("--home", f"{file} cannot be opened: {error.strerror}", allowed="a folder that you can write")


class Journal(JournalFileBackend):
    """A journal file whose records have checksums, and whose errors are one line.

    Args:
        file: Path of the file, which is created if it is missing.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._values = SharedValues()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records; a reader sees all of them or none.

        Raises:
            LedgerUnavailable: If the file cannot be written.
        """
        try:
            with get_lock_file(self._lock), open(self._file_path, "r+b") as journal:
                previous, content = _read_last_line(journal), b""
                for log in logs:
                    previous = link(log, previous)
                    content += previous + b"\n"
                journal.seek(0, os.SEEK_END)
                journal.write(content)
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            found = f"the ledger {self._file_path} cannot be written: {error.strerror}"
            raise LedgerUnavailable(f"{found}; free some space and resume the study") from None

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from a 0-based number on.

        Raises:
            LedgerUnavailable: If a line was damaged after the journal was opened.
        """
        # The storage reads on from where it stopped, so that the places of earlier records are not needed.
        places = self._log_number_offset
        self._log_number_offset = {number: places[number] for number in {0, log_number_from} & places.keys()}
        try:
            for record in super().read_logs(log_number_from):
                if record["op_code"] == SET_TRIAL_ATTRIBUTE:
                    record["user_attr"] = {key: self._values.share(it) for key, it in record["user_attr"].items()}
                yield record
        except ValueError:
            place = Path(self._file_path)
            raise LedgerUnavailable(f"the ledger {place} was damaged; {REPAIR} {place.parent}") from None


def link(record: dict[str, Any], previous: bytes) -> bytes:
    """Return the line of a record, without its end.

    Args:
        record: The record; a checksum that it has is replaced.
        previous: The line before it, without its end; empty for the first line.
    """
    value = {**record, PREVIOUS: _compute_checksum(previous)}
    return json.dumps(value, separators=(",", ":")).encode()


def read_lines(file: Path) -> Iterator[Line]:
    """Yield the complete lines of a journal."""
    with file.open("rb") as journal:
        for number, content in enumerate(journal, start=1):
            if content.endswith(b"\n"):  # otherwise, a process is writing it
                yield Line.parse(number, content[:-1])


def find_faults(lines: Iterator[Line], file: Path) -> Iterator[Problem]:
    """Yield the faults of a journal: invalid lines, and places where lines are missing or were changed.

    Args:
        lines: All its lines.
        file: Its path, for messages.
    """
    studies = trials = 0
    before = b""
    for line in lines:
        where, record, before, previous = f"{file}:{line.number}", line.record, line.content, before
        if record is None:
            yield Problem(where, "the ledger is damaged: this line is not a record")
            continue
        studies += record["op_code"] == CREATE_STUDY
        trials += record["op_code"] == CREATE_TRIAL
        is_changed = PREVIOUS in record and record[PREVIOUS] != _compute_checksum(previous)
        if is_changed or record.get("trial_id", -1) >= trials or record.get("study_id", -1) >= studies:
            yield Problem(where, "the ledger is damaged: lines before this one are missing or were changed")


def _compute_checksum(line: bytes) -> str:
    return f"{zlib.crc32(line):08x}"


def _read_last_line(journal: BinaryIO) -> bytes:
    """Return the last line of an open journal without its end; empty if there is none."""
    size, length = journal.seek(0, os.SEEK_END), 4096
    while True:
        length = min(length, size)
        journal.seek(size - length)
        tail = journal.read(length).removesuffix(b"\n")
        if b"\n" in tail or length == size:
            return tail.rpartition(b"\n")[2]
        length *= 4


def _truncate_incomplete_line(file: Path) -> None:
    """Remove an incomplete last line."""
    if _find_end_of_lines(file) is None:
        return
    with get_lock_file(JournalFileSymlinkLock(str(file))):  # another process may be writing that line
        end = _find_end_of_lines(file)
        if end is not None:
            os.truncate(file, end)


def _find_end_of_lines(file: Path) -> int | None:
    """Return the offset in bytes after the last complete line; None if the file ends there."""
    with file.open("rb") as journal:
        size = journal.seek(0, os.SEEK_END)
        tail = min(size, MAX_LINE_BYTES)
        journal.seek(size - tail)
        content = journal.read(tail)
    return None if not content or content.endswith(b"\n") else size - tail + content.rfind(b"\n") + 1
