"""Faults of a home folder's MLflow database, and ports that cannot be used: one line each, without a traceback."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clinie_core import __version__
from clinie_core.errors import InputError
from search.cli.main import main
from search.promotion.policy import read_policy
from search.storage.home import Home
from search.storage.home_version import LAYOUT
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


@pytest.mark.parametrize("name", ["o'neil", "a/b", "a:b", "", "x" * 201])
def test_names_that_the_registry_cannot_hold_are_one_line(
    name: str,
    home: Home,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("Fever.", encoding="utf-8")
    copy = f"sqlite:///{tmp_path}/other/registry.db"
    for arguments in (
        ["promote", "small", "--name", name],
        ["history", name],
        ["rollback", name],
        ["copy", f"{name}@champion", "--to", copy],
        ["predict", str(note), "--model", f"{name}@champion"],
        ["evaluate", str(corpus_folder), "--format", "brat", "--model", f"{name}@champion"],
        ["serve", f"{name}@champion"],
    ):
        monkeypatch.setattr("sys.argv", ["clinie", *arguments, "--home", str(home.root)])
        with pytest.raises(SystemExit) as stopped:
            main()
        errors = capsys.readouterr().err
        assert stopped.value.code == 2, arguments
        assert len(errors.splitlines()) == 1, errors


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"\x89PNG\r\n\x1a\n\0\xff", "not a text file in UTF-8"), (b"version: 1\nalpha: [", "invalid YAML"), (b"- 1", "")],
    ids=["binary", "yaml", "list"],
)
def test_a_policy_that_cannot_be_read_is_one_line(content: bytes, found: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        read_policy(file)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ('{"layout": 2, "clinie": "9.1"}', "was written by clinie 9.1, and this is clinie"),
        ("no JSON", "version.json: not a version record"),
        ("[]", "version.json: not a version record"),
    ],
)
def test_a_home_of_a_newer_version_is_not_opened(
    record: str, found: str, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home.root / "version.json").write_text(record, encoding="utf-8")
    before = {file.name: file.read_bytes() for file in home.root.iterdir() if file.is_file()}
    for arguments in (
        ["status"],
        ["resume", "small"],
        ["promote", "small", "--name", "m"],
        ["history", "m"],
        ["repair"],
    ):
        monkeypatch.setattr("sys.argv", ["clinie", *arguments, "--home", str(home.root)])
        with pytest.raises(SystemExit) as stopped:
            main()
        errors = capsys.readouterr().err
        assert stopped.value.code == 2
        assert found in errors
        assert len(errors.splitlines()) == 1
    assert {file.name: file.read_bytes() for file in home.root.iterdir() if file.is_file()} == before


def test_the_version_is_recorded_when_a_home_is_written(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home", create=True)
    assert not (home.root / "version.json").exists()
    connection.connect(home)
    assert json.loads((home.root / "version.json").read_text()) == {"layout": LAYOUT, "clinie": __version__}
    (home.root / "version.json").write_text('{"layout": 1, "clinie": "0.0.9"}', encoding="utf-8")
    connection.connect(Home.open(home.root))
    assert json.loads((home.root / "version.json").read_text())["clinie"] == __version__


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
