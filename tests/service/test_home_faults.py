"""Faults of a home folder's MLflow database, and ports that cannot be used: one line each, without a traceback."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clinie_core.errors import InputError
from search.cli.main import main
from search.storage.home import Home
from search.tracking import connection


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    home = Home(tmp_path_factory.mktemp("source"))
    connection.connect(home)
    return (home.root / "mlflow.db").read_bytes()


@pytest.fixture
def home(tmp_path: Path, database: bytes) -> Home:
    (tmp_path / "mlflow.db").write_bytes(database)
    return Home(tmp_path)


def run_ui(home: Home, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["clinie", "ui", "--home", str(home.root), "--port", str(port)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    return errors


def test_a_database_of_another_version_is_named_with_a_remedy(
    home: Home, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(home.root / "mlflow.db")) as session, session:
        session.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    errors = run_ui(home, free_port(), monkeypatch, capsys)
    assert "mlflow.db: the database has the schema of another version" in errors
    assert "mlflow db upgrade" in errors


def test_a_locked_database_is_named_after_a_bounded_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOCK_SECONDS", 0.0)
    with closing(sqlite3.connect(home.root / "mlflow.db", isolation_level=None)) as session:
        session.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"mlflow\.db: another process has locked the database"):
            connection.connect(home)
    connection.connect(home)


def test_a_damaged_database_is_named(home: Home) -> None:
    (home.root / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"mlflow\.db: the database is damaged"):
        connection.connect(home)
    assert (home.root / "mlflow.db").read_bytes() == b"no database" * 1000


def test_ui_rejects_ports_that_it_cannot_use(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--port: 99999 is not a port; 1 to 65535" in run_ui(home, 99999, monkeypatch, capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port: port {port} of 127.0.0.1 is in use" in run_ui(home, port, monkeypatch, capsys)
