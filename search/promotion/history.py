"""History of a registered model: an append-only list of entries, each with the digest of the previous entry.

The entries are tags of the registered model, so that all users of the registry share them. Each version also has
a tag with the digest of its ``registered`` entry. Changed, deleted and inserted entries are therefore detected.
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
    """One event in the history of a registered model.

    Args:
        number: 1-based number of the entry.
        kind: ``read`` (the test split is about to be read), ``decision``, ``registered``, ``promoted``,
            ``rolled_back`` or ``copied``.
        at: Time in UTC, ISO 8601.
        content: Details of the event, as JSON values.
        previous: Digest of the previous entry; zeros for the first entry.
        digest: SHA-256 of the other fields.
    """

    number: int
    kind: str
    at: str
    content: dict[str, Any]
    previous: str
    digest: str = ""

    def compute_digest(self) -> str:
        """Compute the digest that an unchanged entry has."""
        own = {k: v for k, v in asdict(self).items() if k != "digest"}
        return hashlib.sha256(json.dumps(own, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class History:
    """History of one registered model; the first entry creates the model if it is missing.

    Args:
        client: Client of the registry.
        name: Name of the registered model.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def read_entries(self) -> list[Entry]:
        """Return all entries in order; none if the registry has no such model."""
        tags = self._tags()
        return [Entry(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(PREFIX)]

    def find(self, kind: str, promotion: str) -> Entry | None:
        """Return the entry of the given kind and promotion key; None if there is none."""
        own = (e for e in self.read_entries() if e.kind == kind and e.content.get("promotion") == promotion)
        return next(own, None)

    def _tags(self) -> dict[str, str]:
        try:
            return dict(self.client.get_registered_model(self.name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def create_model(self) -> None:
        """Create the registered model if it is missing; its history needs no version."""
        if not self.client.search_registered_models(f"name = '{self.name}'", max_results=1):
            self.client.create_registered_model(self.name)

    def append(self, kind: str, content: Mapping[str, Any]) -> Entry:
        """Append an entry with the current time.

        Args:
            kind: Kind of the event.
            content: Details of the event, as JSON values.

        Returns:
            The new entry.
        """
        self.create_model()
        before = self.read_entries()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(len(before) + 1, kind, at, dict(content), before[-1].digest if before else FIRST)
        entry = Entry(**{**asdict(entry), "digest": entry.compute_digest()})
        value = json.dumps(asdict(entry), sort_keys=True)
        self.client.set_registered_model_tag(self.name, f"{PREFIX}{entry.number:06d}", value)
        return entry

    def find_faults(self) -> list[str]:
        """Verify the history and return a message for each fault; none if it is intact."""
        entries = self.read_entries()
        faults = []
        previous = FIRST
        for number, entry in enumerate(entries, start=1):
            if entry.number != number:
                faults.append(f"entry {number} is missing")
                break
            if entry.digest != entry.compute_digest():
                faults.append(f"entry {number} was changed")
            if entry.previous != previous:
                faults.append(f"entry {number} does not follow the previous entry")
            previous = entry.digest
        known = {entry.digest for entry in entries}
        for version in self.client.search_model_versions(f"name = '{self.name}'"):
            digest = version.tags.get(HISTORY_DIGEST)
            if digest is not None and digest not in known:
                faults.append(f"the `registered` entry of version {version.version} is missing")
        champion, recorded = self.find_champion(), self.find_recorded_champion(entries)
        if champion is not None and champion != recorded:
            faults.append(f"version {champion} is champion, but the recorded champion is {recorded or 'none'}")
        return faults

    def find_unrecorded_versions(self) -> list[str]:
        """Return versions that clinie did not register; they are no fault unless one is champion."""
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        return [str(version.version) for version in versions if HISTORY_DIGEST not in version.tags]

    def find_champion(self) -> str | None:
        """Return the version with the alias ``champion``; None if there is none."""
        try:
            return str(self.client.get_model_version_by_alias(self.name, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    @staticmethod
    def find_recorded_champion(entries: list[Entry]) -> str | None:
        """Return the champion according to the entries; None if no version was promoted."""
        champions = [e for e in entries if e.kind in ("promoted", "rolled_back", "copied")]
        return str(champions[-1].content["version"]) if champions else None

    def list_champions(self) -> list[str]:
        """Return the champions in order, the current one last; a rollback removes the champion that it replaces."""
        stack: list[str] = []
        for entry in self.read_entries():
            if entry.kind in ("promoted", "copied"):
                stack.append(str(entry.content["version"]))
            elif entry.kind == "rolled_back" and stack:
                stack.pop()
        return stack
