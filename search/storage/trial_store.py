"""Training state of trials in object storage, for clusters whose machines share no disk.

A trial's ``best`` and ``last`` folders are stored as one object each, so that a reader gets an old or a new version
and never a partial one. Every URL that pyarrow can open is supported; the endpoint, region and keys of S3 are read
from the usual AWS variables.
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
    """Return the file system of a URL and the path within it.

    Raises:
        InputError: If the URL's scheme is not supported, or the storage cannot be opened.
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
    """Storage for the training state of a study's trials under a URL.

    Args:
        url: URL of the folder that holds all trials.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = open_file_system(url)
        self._saved: dict[Path, int] = {}  # modification time in nanoseconds of each folder's stored version

    def _path(self, number: int, part: str) -> str:
        return f"{self._root}/{number:05d}/{part}.tar"

    def save(self, number: int, folder: Path) -> None:
        """Store the present content of a trial's folder; ``best`` first, because ``last`` refers to it.

        Args:
            number: Number of the trial.
            folder: Folder of the trial, with the subfolders ``best`` and ``last``.

        Raises:
            DiskFull: If the disk for temporary files, where archives are packed, is full.
        """
        for part in (BEST, LAST):
            if not recover_folder(folder / part):
                continue
            modified = max(path.stat().st_mtime_ns for path in (folder / part, *(folder / part).rglob("*")))
            if self._saved.get(folder / part) != modified:  # most epochs do not improve on the best one
                self._upload(folder / part, self._path(number, part))
                self._saved[folder / part] = modified

    def _upload(self, folder: Path, path: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch) / "packed.tar"
            with map_disk_full(packed), tarfile.open(packed, "w") as archive:
                archive.add(folder, arcname=folder.name)
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            fs.copy_files(str(packed), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._fs)

    def fetch(self, number: int, folder: Path, *, parts: tuple[str, ...] = (BEST, LAST)) -> None:
        """Download a trial's stored folders; no-op for folders that are not stored.

        Args:
            number: Number of the trial.
            folder: Folder of the trial; created if needed.
            parts: Names of the subfolders to download.

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
        """Return the numbers of all trials with stored folders."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        paths = [info.path for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        return {int(path.rsplit("/", 2)[1]) for path in paths}

    def remove(self, number: int) -> None:
        """Delete a trial's stored folders."""
        for part in (BEST, LAST):
            path = self._path(number, part)
            if self._fs.get_file_info(path).type != fs.FileType.NotFound:
                self._fs.delete_file(path)
