"""Output files are complete or absent, and replace existing files only on request."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clinie_core.errors import InputError
from clinie_core.output_files import check_output_files, require_empty_folder, stage_folder, write_output


def test_existing_files_and_folders_are_all_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to("missing")
    with pytest.raises(InputError) as error:
        check_output_files(*(tmp_path / name for name in "abcd"), overwrite=False)
    assert [(Path(p.where).name, p.found) for p in error.value.problems] == [
        ("a", "the file exists already"),
        ("b", "is a folder"),
        ("c", "the file exists already"),
    ]
    check_output_files(tmp_path / "a", tmp_path / "d", Path("/dev/stdout"), overwrite=True)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.html"
    for text in ("first\r\n", "second"):
        write_output(file, text)
        assert file.read_bytes() == text.encode()
    with pytest.raises(UnicodeEncodeError):
        write_output(file, "\ud800")
    assert {f.name: f.read_text() for f in file.parent.iterdir()} == {"report.html": "second"}
    with pytest.raises(InputError, match="below: cannot be written: File exists"):
        write_output(file / "below", "x")


@pytest.mark.parametrize("exists", [False, True])
def test_a_staged_folder_is_complete_or_unchanged(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
        (folder / "kept").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    def interrupt() -> None:
        with stage_folder(folder) as part:
            (part / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert sorted(tmp_path.rglob("*")) == before
    with stage_folder(folder) as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_text("whole")
    found = {str(f.relative_to(tmp_path)): f.read_text() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == {"out/sub/a": "whole"} | ({"out/kept": "mine"} if exists else {})
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_a_staged_folder_is_unchanged_if_a_file_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "c").write_text("mine")

    def write() -> None:
        with stage_folder(tmp_path) as part:
            (part / "c").mkdir()
            for name in ("a", "b", "c/d"):
                (part / name).write_text("new")

    with pytest.raises(InputError) as error:
        write()
    assert [(Path(p.where).name, p.found) for p in error.value.problems] == [
        ("b", "is a folder"),
        ("c", "is not a folder"),
    ]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b", "c"]


def test_a_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    require_empty_folder(tmp_path)
    require_empty_folder(tmp_path / "new")
    (tmp_path / "file").write_text("mine")
    require_empty_folder(tmp_path, overwrite=True)
    with pytest.raises(
        InputError, match="exists and is not empty; a new or empty folder; remove it, name another, or pass --over"
    ):
        require_empty_folder(tmp_path)
    with pytest.raises(InputError, match="exists and is not a folder"):
        require_empty_folder(tmp_path / "file", overwrite=True)
