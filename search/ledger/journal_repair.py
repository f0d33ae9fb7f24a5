"""Repair of a damaged journal: all records that are left keep their trial, and the damaged file is kept as a backup."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file
from pydantic import ValidationError

from clinie_core.errors import Problem, fail
from search.config.space_file import SpaceFile
from search.ledger.journal import CREATE_STUDY, CREATE_TRIAL, Journal, Line, find_faults, link, read_lines

__all__ = ["Repair", "repair_journal"]


@dataclass(frozen=True)
class Repair:
    """A repaired journal.

    Args:
        faults: The faults that were found; empty if the journal was left as it is.
        backup: Copy of the damaged file.
    """

    faults: tuple[Problem, ...]
    backup: Path | None


def repair_journal(file: Path) -> Repair:
    """Repair a journal file if it is damaged; a copy of the damaged file is written first.

    A lost line that created a trial is replaced, because the records number trials by their order. Other lost lines
    are missing in their trial only. No search may be running.

    Args:
        file: The journal.

    Raises:
        InputError: If the file cannot be read or written, or the start of a study is lost without its space.
    """
    try:
        with get_lock_file(JournalFileSymlinkLock(str(file))):
            faults = tuple(find_faults(read_lines(file), file))
            if not faults:
                return Repair((), None)
            with tempfile.TemporaryDirectory(prefix=".clinie-", dir=file.parent) as staging:
                part = Path(staging) / "journal"
                previous, content = b"", b""
                for record in _recover(list(read_lines(file)), file):
                    previous = link(record, previous)
                    content += previous + b"\n"
                part.write_bytes(content)
                _check(part, file)
                backup = _copy(file)
                part.replace(file)
        return Repair(faults, backup)
    except OSError as error:
        return fail(str(file), f"cannot be repaired: {error.strerror}", allowed="a folder with free space")


def _recover(lines: list[Line], file: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a damaged journal, with records for the creations that are missing."""
    records = [record for line in lines if (record := line.record or _find_complete_record(line)) is not None]
    studies = trials = 0
    started: str | None = None
    study = 0
    for index, record in enumerate(records):
        creates_study, creates_trial = (record["op_code"] == code for code in (CREATE_STUDY, CREATE_TRIAL))
        while record.get("study_id", -1) >= studies:
            yield _make_study(records[index:], studies, record, file)
            studies += 1
        study = record.get("study_id", study)
        started = record.get("datetime_start") or started
        while record.get("trial_id", -1) >= trials:
            worker = record.get("worker_id", "")
            yield {"op_code": CREATE_TRIAL, "worker_id": worker, "study_id": study, "datetime_start": started}
            trials += 1
        studies += creates_study
        trials += creates_trial
        yield record


def _find_complete_record(line: Line) -> dict[str, Any] | None:
    """Return the record at the end of a line that begins with the rest of another one."""
    start = line.content.find(b'{"op_code"', 1)
    while start > 0:
        record = Line.parse(line.number, line.content[start:]).record
        if record is not None:
            return record
        start = line.content.find(b'{"op_code"', start + 1)
    return None


def _make_study(rest: list[dict[str, Any]], number: int, record: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return a record that creates a study, from the space that the study has stored."""
    for later in rest:
        space = later.get("user_attr", {}).get("space") if later.get("study_id") == number else None
        if space is not None:
            try:
                content = SpaceFile.model_validate(space)
            except ValidationError:
                break
            directions = [1 if objective.direction == "minimize" else 2 for objective in content.objective]
            worker = record.get("worker_id", "")
            return {"op_code": CREATE_STUDY, "worker_id": worker, "study_name": content.study, "directions": directions}
    return fail(str(file), f"the start of study {number + 1} is lost", remedy="restore the file from a backup")


def _check(part: Path, file: Path) -> None:
    """Check that a repaired journal can be read."""
    try:
        storage = JournalStorage(Journal(str(part)))
        for study in storage.get_all_studies():
            storage.get_all_trials(study._study_id)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):  # a record lacks a field
        fail(str(file), "too many lines are damaged", remedy="restore the file from a backup")


def _copy(file: Path) -> Path:
    """Copy the damaged file next to it, under a new name."""
    number = 1
    while True:
        backup = file.with_name(f"{file.name}.damaged-{number}")
        try:
            target = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(target, "wb") as copy:
            copy.write(file.read_bytes())
            copy.flush()
            os.fsync(copy.fileno())
        return backup
