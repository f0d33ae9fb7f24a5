"""Local copies of fetched backbones, so that each node reads a backbone from shared storage once.

The cache has a limit in bytes. New copies replace the least recently used ones, except those that a process uses.
Processes of a node share it: one copies at a time, and a copy gets its name only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clinie_core.backbones.cache_folder import get_cache_folder
from clinie_core.backbones.manifest import FetchedBackbone
from clinie_core.errors import fail

__all__ = ["LIMIT_VARIABLE", "copy_to_node"]

LIMIT_VARIABLE = "CLINIE_BACKBONES_CACHE"
DEFAULT_LIMIT = "100GB"
UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "TB": 10**12}
FREE_SHARE = 0.05
"""Share of the file system that stays free."""
CHUNK = 16 * 2**20
PART = ".part-"

_in_use: dict[str, IO[bytes]] = {}
"""Locks of the copies that this process uses, until it ends."""


def copy_to_node(folder: Path, backbone: FetchedBackbone) -> Path:
    """Return a local copy of a fetched backbone.

    Args:
        folder: Its folder on shared storage.
        backbone: Its entry in the manifest.

    Returns:
        The copy; the folder on shared storage if the cache is disabled or full.

    Raises:
        InputError: If a file on shared storage is missing or differs from the manifest.
    """
    limit = _read_limit()
    if not limit:
        return folder
    root = get_cache_folder() / "backbones"
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    copy = root / backbone.key
    while not _use(copy):
        with _lock(root / ".lock"):
            if not copy.is_dir():
                if not _free_space(root, backbone.size, limit):
                    return folder
                _copy_files(folder, backbone, root / f"{PART}{backbone.key}")
                os.replace(root / f"{PART}{backbone.key}", copy)
    return copy


def _use(copy: Path) -> bool:
    """Protect a copy from eviction until this process ends; return whether it exists."""
    if str(copy) in _in_use:
        return True
    lock = _get_lock_file(copy).open("ab")
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not copy.is_dir():
        lock.close()
        return False
    os.utime(copy)
    _in_use[str(copy)] = lock
    return True


def _free_space(root: Path, size: int, limit: int) -> bool:
    """Remove copies that no process uses, the least recently used first, until a new one fits.

    Returns:
        Whether it fits.
    """
    for part in root.glob(f"{PART}*"):  # of a process that was killed while it held the lock
        shutil.rmtree(part)
    copies = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {copy: sum(file.stat().st_size for file in copy.iterdir()) for copy in copies}

    def fits() -> bool:
        usage = shutil.disk_usage(root)
        return sum(sizes.values()) + size <= limit and usage.free - size >= FREE_SHARE * usage.total

    for copy in copies:
        if fits():
            break
        with _get_lock_file(copy).open("ab") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(copy)
            del sizes[copy]
    return fits()


def _copy_files(folder: Path, backbone: FetchedBackbone, part: Path) -> None:
    part.mkdir(mode=0o700)
    for name, expected in backbone.files.items():
        state = hashlib.sha256()
        try:
            with (folder / name).open("rb") as source, (part / name).open("xb") as target:
                while chunk := source.read(CHUNK):
                    state.update(chunk)
                    target.write(chunk)
        except FileNotFoundError:
            shutil.rmtree(part)
            fail(str(folder / name), "the file is missing", remedy="run `clinie backbones verify`")
        if state.hexdigest() != expected.sha256:
            shutil.rmtree(part)
            fail(str(folder / name), "the sha256 differs from the manifest", remedy="run `clinie backbones verify`")


def _get_lock_file(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.lock")


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_limit() -> int:
    """Return the limit in bytes that ``CLINIE_BACKBONES_CACHE`` sets."""
    value = os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB|)", value)
    if match is None:
        fail(LIMIT_VARIABLE, f"{value!r} is no size", allowed="a size such as 200GB, or 0 for no local copies")
    return int(float(match[1]) * UNITS[match[2]])
