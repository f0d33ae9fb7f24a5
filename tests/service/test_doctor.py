"""`clinie doctor` finds faults of the machine and suggests remedies."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from search.cluster import doctor
from search.cluster.doctor import Finding, is_loopback, run_checks
from search.storage.home import Home


def findings(home: Home) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in run_checks(home):
        found.setdefault(finding.check, []).append(finding)
    return found


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("::", False),
        ("0.0.0.0", False),
    ],
)
def test_addresses_of_this_machine_alone_are_recognized(address: str, expected: bool) -> None:
    assert is_loopback(address) == expected


def test_a_fresh_installation_has_no_bad_finding(tmp_path: Path) -> None:
    found = findings(Home(tmp_path / "home"))
    assert not [f for own in found.values() for f in own if f.status == "bad"]
    assert {"version of ray", "version of mlflow", "open ports", "Ray's token", "disk", "GPU", "ledger"} <= set(found)
    assert not (tmp_path / "home").exists()


def test_a_readable_token_and_disabled_authentication_are_bad(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    readable = doctor._check_token({"RAY_AUTH_TOKEN_PATH": str(token)})
    assert readable.status == "bad"
    assert readable.remedy == f"chmod 600 {token}"
    token.chmod(0o600)
    assert doctor._check_token({"RAY_AUTH_TOKEN_PATH": str(token)}).status == "good"
    assert doctor._check_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}).status == "bad"
    assert doctor._check_token({"RAY_AUTH_MODE": "disabled"}).status == "bad"


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[int]:
    """Port of a running program named mlflow that listens on all interfaces."""
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


def test_a_server_on_all_interfaces_is_a_warning(tmp_path: Path, open_server: int) -> None:
    shown = [f.found for f in findings(Home(tmp_path))["open ports"]]
    assert any(f"0.0.0.0:{open_server}, which other machines can reach" in found for found in shown)


def test_an_unreachable_mlflow_server_is_bad_and_its_password_is_hidden(
    tmp_path: Path, clinie: Callable[..., Any]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://me:secret-word@127.0.0.1:{probe.getsockname()[1]}"
        done = clinie("doctor", "--home", tmp_path, "--tracking-uri", uri)
    assert done.returncode == 1
    assert "bad      MLflow" in done.stdout
    assert "secret-word" not in done.stdout + done.stderr


def test_unreachable_storage_is_bad_and_its_password_is_hidden(tmp_path: Path) -> None:
    away = Home(tmp_path, ledger="postgresql://me:hidden-word@127.0.0.1:9/ledger", storage="nowhere://bucket")
    found = findings(away)
    (ledger,) = found["ledger"]
    (objects,) = found["object storage"]
    assert (ledger.status, objects.status) == ("bad", "bad")
    assert ledger.found == "the database does not answer at postgresql://me@127.0.0.1:9/ledger"
    assert "CLINIE_STORAGE" in objects.remedy
