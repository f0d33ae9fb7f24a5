"""What happened to a registered model: an append-only record whose entries each hold the digest of the one before.

It is kept as tags of the registered model, so that everyone who uses the registry sees the same, and the
digest of the entry by which a version was registered stands on that version too: an entry that was changed,
taken away or put in between shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

__all__ = ["CHAMPION", "HISTORY_DIGEST", "Entry", "History"]

CHAMPION = "champion"
PREFIX = "clinie.history."
HISTORY_DIGEST = "clinie.history_digest"
FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Args:
        number: From 1.
        kind: ``read`` (the test split is about to be read), ``decision``, ``registered``, ``promoted``,
            ``rolled_back``, ``copied``.
        at: When, in UTC, ISO 8601.
        content: What there is to say of it.
        previous: Digest of the entry before.
        digest: Of all of this.
    """

    number: int
    kind: str
    at: str
    content: dict[str, Any]
    previous: str
    digest: str = ""

    def compute_digest(self) -> str:
        """The digest that the entry should have."""
        own = {k: v for k, v in asdict(self).items() if k != "digest"}
        return hashlib.sha256(json.dumps(own, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class History:
    """The record of one registered model, which is made when the first entry is.

    Args:
        client: The registry.
        name: The model.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def read_entries(self) -> list[Entry]:
        """All entries, in order; empty where there is no such model."""
        tags = self._tags()
        return [Entry(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(PREFIX)]

    def find(self, kind: str, promotion: str) -> Entry | None:
        """The entry of a kind that a promotion has left; None if it has not come to that."""
        own = (e for e in self.read_entries() if e.kind == kind and e.content.get("promotion") == promotion)
        return next(own, None)

    def _tags(self) -> dict[str, str]:
        try:
            return dict(self.client.get_registered_model(self.name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def ensure(self) -> None:
        """Make the registered model if it is not there; a model without a version holds a record already."""
        if not self.client.search_registered_models(f"name = '{self.name}'", max_results=1):
            self.client.create_registered_model(self.name)

    def append(self, kind: str, content: Mapping[str, Any]) -> Entry:
        """Record that something happened."""
        self.ensure()
        before = self.read_entries()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(len(before) + 1, kind, at, dict(content), before[-1].digest if before else FIRST)
        entry = Entry(**{**asdict(entry), "digest": entry.compute_digest()})
        value = json.dumps(asdict(entry), sort_keys=True)
        self.client.set_registered_model_tag(self.name, f"{PREFIX}{entry.number:06d}", value)
        return entry

    def find_faults(self) -> list[str]:
        """What shows that the record was tampered with; nothing if it holds."""
        entries = self.read_entries()
        faults = []
        previous = FIRST
        for place, entry in enumerate(entries, start=1):
            if entry.number != place:
                faults.append(f"entry {place} is missing")
                break
            if entry.digest != entry.compute_digest():
                faults.append(f"entry {place} was changed")
            if entry.previous != previous:
                faults.append(f"entry {place} does not follow the entry before it")
            previous = entry.digest
        known = {entry.digest for entry in entries}
        for version in self.client.search_model_versions(f"name = '{self.name}'"):
            digest = version.tags.get(HISTORY_DIGEST)
            if digest is not None and digest not in known:
                faults.append(f"the entry by which version {version.version} was registered is missing")
        champion, said = self.find_champion(), self.find_recorded_champion(entries)
        if champion is not None and champion != said:
            faults.append(f"version {champion} is champion, and the record says {said or 'none'}")
        return faults

    def find_unrecorded_versions(self) -> list[str]:
        """Versions that something else registered, which does the record no harm as long as none is champion."""
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        return [str(version.version) for version in versions if HISTORY_DIGEST not in version.tags]

    def find_champion(self) -> str | None:
        """The version that is champion now."""
        try:
            return str(self.client.get_model_version_by_alias(self.name, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    @staticmethod
    def find_recorded_champion(entries: list[Entry]) -> str | None:
        """The version that the record says is champion."""
        champions = [e for e in entries if e.kind in ("promoted", "rolled_back", "copied")]
        return str(champions[-1].content["version"]) if champions else None

    def list_champions(self) -> list[str]:
        """Versions that were champion, in order; a rollback takes back what it rolled back from."""
        stack: list[str] = []
        for entry in self.read_entries():
            if entry.kind in ("promoted", "copied"):
                stack.append(str(entry.content["version"]))
            elif entry.kind == "rolled_back" and stack:
                stack.pop()
        return stack
