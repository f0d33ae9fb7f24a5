"""Retries of the ledger's database calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from clinie_core.errors import InputError
from search.ledger import database as storage_module
from search.ledger.storage import LedgerUnavailable, open_storage
from search.storage.home import Home


class Outage:
    """An outage of the database: its next calls fail."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.pauses: list[float] = []

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error


def open_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: Outage) -> storage_module.DatabaseStorage:
    monkeypatch.setattr(storage_module, "_pause", outage.pauses.append)
    opened = open_storage(Home(tmp_path, ledger=f"sqlite:///{tmp_path / 'ledger.db'}"))
    assert isinstance(opened, storage_module.DatabaseStorage)
    monkeypatch.setattr(opened, "scoped_session", FailingSession(opened.scoped_session, outage))
    return opened


class FailingSession:
    """A session factory that fails while there is an outage."""

    def __init__(self, factory: object, outage: Outage) -> None:
        self._factory = factory
        self._outage = outage

    def __call__(self) -> object:
        self._outage.fail()
        return self._factory()  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        return getattr(self._factory, name)


OUTAGE = OperationalError("SELECT 1", {}, Exception("connection refused"))


def test_a_call_is_retried_until_the_database_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(3, OUTAGE)
    opened = open_database(tmp_path, monkeypatch, outage)
    assert opened.get_all_studies() == []
    assert outage.pauses == [storage_module.PAUSE_SECONDS] * 3


def test_a_long_outage_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "RETRY_SECONDS", 0.0)
    opened = open_database(tmp_path, monkeypatch, Outage(3, OUTAGE))
    with pytest.raises(LedgerUnavailable, match=r"ledger at sqlite:///.* has not answered for 0 minutes; resume"):
        opened.get_all_studies()


def test_other_errors_are_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(1, InputError([]))
    opened = open_database(tmp_path, monkeypatch, outage)
    with pytest.raises(InputError):
        opened.get_all_studies()
    assert outage.pauses == []
