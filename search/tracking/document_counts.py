"""Download of the trials' counts by document from MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from mlflow.tracking import MlflowClient

from clinie_core.scoring.document_counts import FILE, DocumentCounts
from search.ledger.records import TrialRecord

__all__ = ["fetch_document_counts"]


def fetch_document_counts(client: MlflowClient, records: Iterable[TrialRecord]) -> dict[int, DocumentCounts]:
    """Download the counts by document of trials.

    Returns:
        The counts by trial number; trials without counts are omitted.
    """
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for record in records:
            if record.run_id is None or FILE not in {f.path for f in client.list_artifacts(record.run_id)}:
                continue  # the trial has no epoch, or its events are still in the outbox
            target = Path(scratch, str(record.number))
            target.mkdir()
            file = client.download_artifacts(record.run_id, FILE, str(target))
            found[record.number] = DocumentCounts.read(Path(file).parent)
    return found
