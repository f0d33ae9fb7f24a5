"""The doctor finds what is wrong with a machine, and says what to do."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from search.cluster import doctor
from search.cluster.doctor import Finding, run_checks
from search.storage.home import Home


def findings(home: Home) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in run_checks(home):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_a_machine_as_installed_has_nothing_bad(tmp_path: Path) -> None:
    found = findings(Home(tmp_path / "home"))
    assert not [f for own in found.values() for f in own if f.standing == "bad"]
    assert {"version of ray", "version of mlflow", "open ports", "Ray's token", "disk", "GPU", "ledger"} <= set(found)
    assert not (tmp_path / "home").exists()


def test_a_token_that_others_can_read_and_a_ray_without_one_are_bad(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    readable = doctor._token({"RAY_AUTH_TOKEN_PATH": str(token)})
    assert readable.standing == "bad"
    assert readable.remedy == f"chmod 600 {token}"
    token.chmod(0o600)
    assert doctor._token({"RAY_AUTH_TOKEN_PATH": str(token)}).standing == "good"
    assert doctor._token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}).standing == "bad"
    assert doctor._token({"RAY_AUTH_MODE": "disabled"}).standing == "bad"


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[int]:
    """A program called mlflow that listens on every interface."""
    program = tmp_path / "mlflow-server.py"
    program.write_text(
        "import socket\n"
        "listening = socket.create_server(('0.0.0.0', 0))\n"
        "print(listening.getsockname()[1], flush=True)\n"
        "listening.accept()\n"
    )
    with Popen([sys.executable, str(program)], stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_what_listens_beyond_loopback_is_shown(tmp_path: Path, open_server: int) -> None:
    shown = [f.found for f in findings(Home(tmp_path))["open ports"]]
    assert any(f"0.0.0.0:{open_server}, which other machines reach" in words for words in shown)


def test_a_server_that_is_away_is_bad_and_its_password_is_not_shown(tmp_path: Path, clinie: Callable[..., Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://me:secret-word@127.0.0.1:{probe.getsockname()[1]}"
        done = clinie("doctor", "--home", tmp_path, "--tracking-uri", uri)
    assert done.returncode == 1
    assert "bad      MLflow" in done.stdout
    assert "secret-word" not in done.stdout + done.stderr


def test_storage_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    away = Home(tmp_path, ledger="postgresql://me:hidden-word@127.0.0.1:9/ledger", storage="nowhere://bucket")
    found = findings(away)
    (ledger,) = found["ledger"]
    (objects,) = found["object storage"]
    assert (ledger.standing, objects.standing) == ("bad", "bad")
    assert ledger.found == "the database does not answer at postgresql://me@127.0.0.1:9/ledger"
    assert "CLINIE_STORAGE" in objects.remedy
