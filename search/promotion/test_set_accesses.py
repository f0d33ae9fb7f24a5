"""Record of the reads of test splits, over all models of a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow.tracking import MlflowClient

from search.promotion.history import Entry, History

__all__ = ["TEST_READ", "TestSetAccess", "count_accesses", "list_accesses_of_study"]

TEST_READ = "clinie.test_read"
"""Tag of a version: 1-based index of its read of the test split."""


@dataclass(frozen=True)
class TestSetAccess:
    """One promotion that read a test split.

    Args:
        model: Name of the registered model.
        entry: The ``read`` entry of the model's history.
        decision: The decision as JSON values; None if the promotion was interrupted before it.
    """

    model: str
    entry: Entry
    decision: dict[str, Any] | None


def _list_histories(client: MlflowClient) -> list[History]:
    found, token = [], None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        found += [History(client, model.name) for model in page]
        token = page.token
        if not token:
            return found


def count_accesses(client: MlflowClient, test_digest: str, recorded: int = 0) -> int:
    """Return the number of promotions that have read a test split.

    The largest number that a history, the tags of a version or ``recorded`` names counts, so that deleting entries
    does not restart the count.

    Args:
        client: Client of the registry.
        test_digest: Digest of the split.
        recorded: Number that is recorded outside the registry.
    """
    entries = [e for history in _list_histories(client) for e in history.read_entries() if e.kind == "read"]
    own = [entry for entry in entries if entry.content.get("test_digest") == test_digest]
    numbers = [int(entry.content.get("read", 0)) for entry in own]
    versions = client.search_model_versions(f"tags.`clinie.test_digest` = '{test_digest}'")
    tags = [version.tags.get(TEST_READ, "") for version in versions]
    numbers += [int(tag) for tag in tags if tag.isdigit()]
    return max([recorded, len({entry.content.get("promotion") for entry in own}), *numbers])


def list_accesses_of_study(client: MlflowClient, study: str) -> list[TestSetAccess]:
    """Return the promotions of a study that read its test split, in order of time."""
    found = []
    for history in _list_histories(client):
        entries = history.read_entries()
        decided = {str(e.content.get("promotion")): e.content["decision"] for e in entries if e.kind == "decision"}
        found += [
            TestSetAccess(history.name, e, decided.get(str(e.content.get("promotion"))))
            for e in entries
            if e.kind == "read" and e.content.get("study") == study
        ]
    return sorted(found, key=lambda read: read.entry.at)
