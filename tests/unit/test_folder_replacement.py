"""A replaced folder survives a kill at every step of the replacement."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clinie_core.modeling import folder_replacement
from clinie_core.modeling.folder_replacement import recover_folder, replace_folder


class Killed(BaseException):
    """Simulated kill of the process."""


def write_folder(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(content, encoding="utf-8")
    return folder


def count_versions(folder: Path) -> int:
    return len(list(folder.parent.glob(f"{folder.name}*")))


def test_the_new_version_replaces_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    for content in ("one", "two"):
        replace_folder(write_folder(tmp_path / "last.staging", content), folder)
        assert (folder / "file").read_text() == content
        assert count_versions(folder) == 1


@pytest.mark.parametrize("step", range(4))
def test_a_kill_at_any_step_leaves_a_complete_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The four steps: remove an older version, rename, rename, remove the older version."""
    folder = write_folder(tmp_path / "last", "one")
    staging = write_folder(tmp_path / "last.staging", "two")
    steps = iter(range(4))

    def kill_before(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill_before(os.replace))
        patch.setattr(shutil, "rmtree", kill_before(shutil.rmtree))
        with pytest.raises(Killed):
            replace_folder(staging, folder)
    assert recover_folder(folder)
    assert (folder / "file").read_text() == ("two" if step == 3 else "one")
    replace_folder(write_folder(tmp_path / "another", "three"), folder)
    assert (folder / "file").read_text() == "three"
    assert count_versions(folder) == 1 + staging.exists()


def test_the_next_replacement_recovers_an_interrupted_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "last"
    write_folder(tmp_path / "last.old", "one")  # interrupted between the renames
    staging = write_folder(tmp_path / "last.staging", "two")

    def kill(folder: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(folder_replacement, "_set_aside", kill)
        with pytest.raises(Killed):
            replace_folder(staging, folder)
    assert (folder / "file").read_text() == "one"


def test_recovery_changes_nothing_without_an_older_version(tmp_path: Path) -> None:
    assert not recover_folder(tmp_path / "last")
    assert not list(tmp_path.iterdir())
    write_folder(tmp_path / "last", "two")
    write_folder(tmp_path / "last.old", "one")
    assert recover_folder(tmp_path / "last")
    assert (tmp_path / "last" / "file").read_text() == "two"
