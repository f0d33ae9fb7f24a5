"""Counts by document of trials, from the artifacts of their MLflow runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from clinie_core.scoring.document_counts import FILE, DocumentCounts
from search.ledger.records import TrialRecord
from search.storage.home import Home

__all__ = ["fetch_document_counts"]


def fetch_document_counts(home: Home, study: str, records: Iterable[TrialRecord]) -> dict[int, DocumentCounts]:
    """Read the counts by document of trials.

    Files in the home folder are read directly, without MLflow, whose import takes two seconds.

    Args:
        home: The home folder.
        study: Name of the study.
        records: The trials.

    Returns:
        The counts by trial number; trials without counts are omitted.
    """
    found: dict[int, DocumentCounts] = {}
    remote: list[TrialRecord] = []
    for record in records:
        if record.run_id is None or not record.epochs:
            continue
        folder = home.artifact_folder(study, record.run_id)
        if folder is not None and (folder / FILE).is_file():
            found[record.number] = DocumentCounts.read(folder)
        elif folder is None or not folder.parent.parent.is_dir():
            remote.append(record)
    return found | (_download(home, remote) if remote else {})


def _download(home: Home, records: Iterable[TrialRecord]) -> dict[int, DocumentCounts]:
    from search.tracking.connection import connect

    client, found = connect(home), {}
    with tempfile.TemporaryDirectory() as scratch:
        for record in records:
            assert record.run_id is not None, "the caller selects trials with a run"
            if FILE not in {f.path for f in client.list_artifacts(record.run_id)}:
                continue  # the events of the trial are still in the outbox
            target = Path(scratch, str(record.number))
            target.mkdir()
            file = client.download_artifacts(record.run_id, FILE, str(target))
            found[record.number] = DocumentCounts.read(Path(file).parent)
    return found
