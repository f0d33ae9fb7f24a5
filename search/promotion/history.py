"""History of a registered model: an append-only list of entries, each with the digest of the previous entry.

The entries are tags of the registered model, so that all users of the registry share them. Each version also has
a tag with the digest of its ``registered`` entry, and the newest version one with the last entry. Changed, deleted
and inserted entries are therefore detected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.promotion.registry_lock import lock_registry

__all__ = ["CHAMPION", "HISTORY_DIGEST", "HISTORY_HEAD", "Anchor", "Entry", "Head", "History"]

CHAMPION = "champion"
PREFIX = "clinie.history."
HISTORY_DIGEST = "clinie.history_digest"
"""Tag of a version: digest of its ``registered`` entry."""
HISTORY_HEAD = "clinie.history_head"
"""Tag of a version: number and digest of the newest entry when it was appended."""
FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One event in the history of a registered model.

    Args:
        number: 1-based number of the entry.
        kind: ``read`` (the test split is about to be read), ``decision``, ``registered``, ``promoted``,
            ``rolled_back``, ``copied`` or ``fault_accepted``.
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


@dataclass(frozen=True)
class Head:
    """Newest entry of a history, stored outside the history so that a deleted tail is noticed.

    Args:
        number: Number of the entry.
        digest: Its digest.
    """

    number: int
    digest: str

    @classmethod
    def parse(cls, text: object) -> Head | None:
        """Parse ``NUMBER:DIGEST``; None for anything else."""
        number, _, digest = str(text).partition(":")
        return cls(int(number), digest) if number.isdigit() and digest else None

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


class Anchor(Protocol):
    """Place outside the registry that stores the head of a history and the number of test reads."""

    def read_head(self, model: str) -> Head | None:
        """Return the stored head of a model's history; None if there is none."""

    def write_head(self, model: str, head: Head) -> None:
        """Store the head of a model's history."""

    def read_test_reads(self, test_digest: str) -> int:
        """Return the stored number of reads of a test split; 0 if there is none."""

    def write_test_reads(self, test_digest: str, number: int) -> None:
        """Store the number of reads of a test split."""


class History:
    """History of one registered model; the first entry creates the model if it is missing.

    Each entry is also recorded in the newest version's tags and, if one is given, in an anchor. Deleting the last
    entries therefore leaves a trace.

    Args:
        client: Client of the registry.
        name: Name of the registered model.
        anchor: Stores the head of the history outside the registry.
    """

    def __init__(self, client: MlflowClient, name: str, anchor: Anchor | None = None) -> None:
        self.client = client
        self.name = name
        self._anchor = anchor

    def read_entries(self) -> list[Entry]:
        """Return all readable entries in order; none if the registry has no such model."""
        return [entry for _, entry in self._read_tags() if entry is not None]

    def find(self, kind: str, promotion: str) -> Entry | None:
        """Return the entry of the given kind and promotion key; None if there is none."""
        own = (e for e in self.read_entries() if e.kind == kind and e.content.get("promotion") == promotion)
        return next(own, None)

    def _read_tags(self) -> list[tuple[int, Entry | None]]:
        """Return the number in each tag's key with its entry; None for an unreadable tag."""
        try:
            tags = dict(self.client.get_registered_model(self.name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        keys = sorted(key for key in tags if key.startswith(PREFIX) and key.removeprefix(PREFIX).isdigit())
        return [(int(key.removeprefix(PREFIX)), _parse_entry(tags[key])) for key in keys]

    def create_model(self) -> None:
        """Create the registered model if it is missing; its history needs no version."""
        if self.client.search_registered_models(f"name = '{self.name}'", max_results=1):
            return
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process has just created it
                raise

    def append(self, kind: str, content: Mapping[str, Any]) -> Entry:
        """Append an entry with the current time.

        A promotion has one entry of each kind: if the history has it already, it is returned.

        Args:
            kind: Kind of the event.
            content: Details of the event, as JSON values.

        Returns:
            The entry.
        """
        return self.append_computed(kind, content.get("promotion"), lambda: content)

    def append_computed(self, kind: str, promotion: str | None, compute: Callable[[], Mapping[str, Any]]) -> Entry:
        """Append an entry whose content is computed while no other process can append to any history.

        Args:
            kind: Kind of the event.
            promotion: Key of the promotion; None for an event outside a promotion.
            compute: Returns the details of the event, as JSON values.

        Returns:
            The entry; the existing one if the promotion has one of this kind.
        """
        self.create_model()
        with lock_registry(self.client):
            existing = self.find(kind, promotion) if promotion is not None else None
            return existing or self._append(kind, compute())

    def _append(self, kind: str, content: Mapping[str, Any]) -> Entry:
        tags = self._read_tags()
        entries = [entry for _, entry in tags if entry is not None]
        versions = self._list_versions()
        heads = [head.number for _, head in self._list_heads(versions)]
        number = max([0, *(number for number, _ in tags), *heads]) + 1
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(number, kind, at, dict(content), entries[-1].digest if entries else FIRST)
        entry = Entry(**{**asdict(entry), "digest": entry.compute_digest()})
        value = json.dumps(asdict(entry), sort_keys=True)
        self.client.set_registered_model_tag(self.name, f"{PREFIX}{entry.number:06d}", value)
        head = Head(entry.number, entry.digest)
        if self._anchor is not None:
            self._anchor.write_head(self.name, head)
        if versions:
            newest = max(versions, key=lambda version: int(version.version))
            self.client.set_model_version_tag(self.name, newest.version, HISTORY_HEAD, str(head))
        return entry

    def _list_versions(self) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{self.name}'"))

    def _list_heads(self, versions: Sequence[ModelVersion]) -> list[tuple[str, Head]]:
        """Return the heads that are stored outside the history, with the place of each."""
        stored = [(f"version {v.version}", Head.parse(v.tags.get(HISTORY_HEAD))) for v in versions]
        if self._anchor is not None:
            stored.append(("the study", self._anchor.read_head(self.name)))
        return [(place, head) for place, head in stored if head is not None]

    def find_faults(self) -> list[str]:
        """Verify the history and return a message for each fault that was not accepted; none if it is intact."""
        accepted = {
            fault
            for entry in self.read_entries()
            if entry.kind == "fault_accepted" and entry.digest == entry.compute_digest()
            for fault in entry.content["faults"]
        }
        return [fault for fault in self._list_faults() if fault not in accepted]

    def _list_faults(self) -> list[str]:
        tags = self._read_tags()
        faults = _find_chain_faults(tags)
        entries = [entry for _, entry in tags if entry is not None]
        known = {entry.digest for entry in entries}
        versions = self._list_versions()
        for version in versions:
            digest = version.tags.get(HISTORY_DIGEST)
            if digest is not None and digest not in known:
                faults.append(f"the `registered` entry of version {version.version} is missing")
        for place, head in self._list_heads(versions):
            if head.digest not in known:
                faults.append(f"entry {head.number}, which {place} has recorded, is missing")
        champion, recorded = self.find_champion(), self.find_recorded_champion(entries)
        if champion is None and recorded is not None:
            gone = "" if recorded in {str(v.version) for v in versions} else ", whose version was deleted"
            faults.append(f"the alias champion is missing; the recorded champion is version {recorded}{gone}")
        elif champion != recorded:
            faults.append(f"version {champion} is champion, but the recorded champion is {recorded or 'none'}")
        return faults

    def find_unrecorded_versions(self) -> list[str]:
        """Return versions that clinie did not register; they are no fault unless one is champion."""
        return [str(version.version) for version in self._list_versions() if HISTORY_DIGEST not in version.tags]

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


def _parse_entry(text: str) -> Entry | None:
    """Parse the value of a tag; None if it is not an entry."""
    try:
        values = json.loads(text)
        entry = Entry(**values)
    except (TypeError, ValueError):
        return None
    kinds = ((entry.number, int), (entry.kind, str), (entry.content, dict), (entry.previous, str), (entry.digest, str))
    return entry if all(isinstance(value, kind) for value, kind in kinds) else None


def _find_chain_faults(tags: Sequence[tuple[int, Entry | None]]) -> list[str]:
    """Return a message for each entry that is missing, unreadable, changed or out of order."""
    faults = []
    previous: str | None = FIRST  # None after an entry that is missing or unreadable
    expected = 1
    for number, entry in tags:
        if number > expected:
            missing = f"entry {expected} is" if number == expected + 1 else f"entries {expected} to {number - 1} are"
            faults.append(f"{missing} missing")
            previous = None
        if entry is None:
            faults.append(f"entry {number} cannot be read")
        elif entry.number != number:
            faults.append(f"entry {number} is missing")
        else:
            if entry.digest != entry.compute_digest():
                faults.append(f"entry {number} was changed")
            if previous is not None and entry.previous != previous:
                faults.append(f"entry {number} does not follow the previous entry")
        previous = entry.digest if entry is not None and entry.number == number else None
        expected = number + 1
    return faults
