"""Archives are unpacked into a temporary folder or refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from clinie_core.data.corpora.archive import MIN_BYTE_LIMIT, unpack
from clinie_core.errors import InputError


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return path


@pytest.mark.parametrize("make", [write_zip, write_tar])
def test_archive_is_unpacked_and_the_temporary_folder_is_removed(tmp_path: Path, make: object) -> None:
    path = make(tmp_path / "c", {"corpus/train/a.txt": b"aspirin", "corpus/train/a.ann": b""})  # type: ignore[operator]
    with unpack(path) as folder:
        assert (folder / "train" / "a.txt").read_text() == "aspirin"
    assert not folder.exists()


@pytest.mark.parametrize("make", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt"])
def test_member_outside_the_folder_is_refused(tmp_path: Path, make: object, name: str) -> None:
    path = make(tmp_path / "c", {"a.txt": b"x", name: b"out"})  # type: ignore[operator]
    with pytest.raises(InputError, match="points outside the folder"), unpack(path):
        pass
    assert not list(tmp_path.parent.glob("**/out.txt"))


def test_links_zip_bombs_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="a link or a device"),
        unpack(write_tar(tmp_path / "l", {}, link="/etc/passwd")),
    ):
        pass
    bomb = write_zip(tmp_path / "b", {"a.txt": b"\0" * (MIN_BYTE_LIMIT + 1)})
    with pytest.raises(InputError, match="unpacks to more than"), unpack(bomb):
        pass
    whole = write_zip(tmp_path / "w", {"a.txt": b"some text that is long enough" * 50})
    broken = bytearray(whole.read_bytes())
    broken[40:60] = b"\xff" * 20
    whole.write_bytes(broken)
    with pytest.raises(InputError, match="cannot be unpacked"), unpack(whole):
        pass


def test_folders_and_plain_files_are_returned_unchanged(tmp_path: Path) -> None:
    with unpack(tmp_path) as folder:
        assert folder == tmp_path
    file = tmp_path / "notes.jsonl"
    file.write_text("{}")
    with unpack(file) as same:
        assert same == file
