"""What a trial needs to go on, in object storage: for a cluster whose machines share no disk.

A trial's ``best`` and ``last`` folder are an object each, so that a reader finds an old one or a new one and never
a part. Any URL that pyarrow opens will do; S3's address, region and keys come from the usual AWS variables.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from pyarrow import fs

from clinie_core.config import BEST, LAST
from clinie_core.errors import fail, map_disk_full
from clinie_core.modeling.folder_replacement import recover_folder
from search.storage.home import STORAGE_VARIABLE

__all__ = ["TrialStore", "open_file_system"]


def open_file_system(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL and the path within it.

    Raises:
        InputError: If there is no such kind of storage, or it does not answer.
    """
    try:
        if url.startswith("s3://"):
            address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            return fs.S3FileSystem(endpoint_override=address, region=region), url.removeprefix("s3://").rstrip("/")
        opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(url)
        return opened
    except (OSError, ValueError) as error:
        return fail(
            STORAGE_VARIABLE, f"{url} cannot be opened: {type(error).__name__}", allowed="a URL such as s3://bucket/x"
        )


class TrialStore:
    """Trials' folders under a URL.

    Args:
        url: Where they are.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = open_file_system(url)
        self._kept: dict[Path, int] = {}  # when what is kept of each folder was written, in nanoseconds

    def _path(self, number: int, part: str) -> str:
        return f"{self._root}/{number:05d}/{part}.tar"

    def save(self, number: int, folder: Path) -> None:
        """Keep a trial's folder as it is now; ``best`` goes first, since ``last`` speaks of it.

        Raises:
            DiskFull: If the disk of temporary files, where a folder is packed, is full.
        """
        for part in (BEST, LAST):
            if not recover_folder(folder / part):
                continue
            written = max(path.stat().st_mtime_ns for path in (folder / part, *(folder / part).rglob("*")))
            if self._kept.get(folder / part) != written:  # most epochs have no new best
                self._put(folder / part, self._path(number, part))
                self._kept[folder / part] = written

    def _put(self, folder: Path, path: str) -> None:
        with tempfile.TemporaryDirectory() as place:
            packed = Path(place) / "packed.tar"
            with map_disk_full(packed), tarfile.open(packed, "w") as archive:
                archive.add(folder, arcname=folder.name)
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            fs.copy_files(str(packed), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._fs)

    def fetch(self, number: int, folder: Path, *, parts: tuple[str, ...] = (BEST, LAST)) -> None:
        """Bring to a folder what is kept of a trial, which may be nothing.

        Raises:
            DiskFull: If the folder's disk is full.
        """
        for part in parts:
            path = self._path(number, part)
            if self._fs.get_file_info(path).type == fs.FileType.NotFound:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with (
                self._fs.open_input_stream(path) as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
                map_disk_full(folder),
            ):
                archive.extractall(folder, filter="data")

    def list_numbers(self) -> set[int]:
        """Trials of which something is kept."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        paths = [info.path for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        return {int(path.rsplit("/", 2)[1]) for path in paths}

    def remove(self, number: int) -> None:
        """Drop what is kept of a trial."""
        for part in (BEST, LAST):
            path = self._path(number, part)
            if self._fs.get_file_info(path).type != fs.FileType.NotFound:
                self._fs.delete_file(path)
