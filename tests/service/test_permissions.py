"""Permissions of new files and folders."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinie_core.errors import InputError
from search.cluster.doctor import run_checks
from search.storage.home import Home
from search.storage.permissions import create_private_files, restrict_new_files

CLINIE = Path(sys.executable).with_name("clinie")


def list_modes(folder: Path) -> set[str]:
    return {f"{stat.S_IMODE(path.lstat().st_mode):o}" for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("mask", "modes"), [(None, {"600", "700"}), ("027", {"640", "750"})])
def test_only_the_owner_can_read_the_files_of_a_command(tmp_path: Path, mask: str | None, modes: set[str]) -> None:
    env = {**os.environ, "CLINIE_UMASK": mask or ""}
    command = [str(CLINIE), "data", "synth", str(tmp_path / "corpus"), "--documents", "12"]
    subprocess.run(command, env=env, umask=0o022, check=True, capture_output=True)
    assert list_modes(tmp_path / "corpus") == modes


@pytest.mark.usefixtures("umask")
def test_the_mask_is_restored_after_a_call_of_the_python_api(tmp_path: Path) -> None:
    with create_private_files():
        (tmp_path / "private").touch()
    (tmp_path / "public").touch()
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o644


@pytest.mark.usefixtures("umask")
def test_a_stricter_mask_stays_in_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    os.umask(0o177)
    monkeypatch.setenv("CLINIE_UMASK", "027")
    restrict_new_files()
    assert os.umask(0o022) == 0o177


@pytest.mark.parametrize("value", ["8", "0o77", "rwx", "77777", "1777", "-1"])
def test_an_invalid_mask_is_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CLINIE_UMASK", value)
    with pytest.raises(InputError, match="CLINIE_UMASK"):
        restrict_new_files()


@pytest.mark.parametrize(("mode", "status"), [(0o755, "warning"), (0o700, "good")])
def test_doctor_reports_a_home_that_others_can_read(tmp_path: Path, mode: int, status: str) -> None:
    tmp_path.chmod(mode)
    (finding,) = (found for found in run_checks(Home(tmp_path)) if found.check == "permissions")
    assert finding.status == status
