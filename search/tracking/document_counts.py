"""Counts by document and of errors of trials, from the artifacts of their MLflow runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from clinie_core.scoring.document_counts import FILE, DocumentCounts
from clinie_core.scoring.error_counts import FILE as ERRORS_FILE
from clinie_core.scoring.error_counts import ErrorCounts
from search.ledger.records import TrialRecord
from search.storage.home import Home

__all__ = ["fetch_document_counts", "fetch_error_counts"]

Counts = TypeVar("Counts")


def fetch_document_counts(home: Home, study: str, records: Iterable[TrialRecord]) -> dict[int, DocumentCounts]:
    """Read the counts by document of trials.

    Args:
        home: The home folder.
        study: Name of the study.
        records: The trials.

    Returns:
        The counts by trial number; trials without counts are omitted.
    """
    return _fetch(home, study, records, FILE, DocumentCounts.read)


def fetch_error_counts(home: Home, study: str, record: TrialRecord) -> ErrorCounts | None:
    """Read the counts of a trial's errors; None if it has none, such as a trial of an earlier version of clinie.

    Args:
        home: The home folder.
        study: Name of the study.
        record: The trial.
    """
    return _fetch(home, study, [record], ERRORS_FILE, ErrorCounts.read).get(record.number)


def _fetch(
    home: Home, study: str, records: Iterable[TrialRecord], name: str, read: Callable[[Path], Counts]
) -> dict[int, Counts]:
    """Read a file of each trial that has it.

    Files in the home folder are read directly, without MLflow, whose import takes two seconds.
    """
    found: dict[int, Counts] = {}
    remote: list[TrialRecord] = []
    for record in records:
        if record.run_id is None or not record.epochs:
            continue
        folder = home.artifact_folder(study, record.run_id)
        if folder is not None and (folder / name).is_file():
            found[record.number] = read(folder)
        elif folder is None or not folder.parent.parent.is_dir():
            remote.append(record)
    return found | (_download(home, remote, name, read) if remote else {})


def _download(
    home: Home, records: Iterable[TrialRecord], name: str, read: Callable[[Path], Counts]
) -> dict[int, Counts]:
    from search.tracking.connection import connect

    client, found = connect(home), {}
    with tempfile.TemporaryDirectory() as scratch:
        for record in records:
            assert record.run_id is not None, "the caller selects trials with a run"
            if name not in {f.path for f in client.list_artifacts(record.run_id)}:
                continue  # the events of the trial are still in the outbox
            target = Path(scratch, str(record.number))
            target.mkdir()
            file = client.download_artifacts(record.run_id, name, str(target))
            found[record.number] = read(Path(file).parent)
    return found
