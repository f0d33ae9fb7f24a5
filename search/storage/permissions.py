"""Permissions of new files: only their owner can read them, because they can contain or reveal patient text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinie_core.errors import fail

__all__ = ["UMASK_VARIABLE", "create_private_files", "restrict_folder", "restrict_new_files"]

UMASK_VARIABLE = "CLINIE_UMASK"
DEFAULT_UMASK = 0o077


def restrict_new_files() -> None:
    """Create all further files of this process and its children with mode 600, and folders with mode 700.

    ``CLINIE_UMASK`` replaces the mask 077, for example by 027 if a group shares the home folder. A mask of the process
    that permits less stays in effect.

    Raises:
        InputError: If ``CLINIE_UMASK`` is not an octal number from 000 to 777.
    """
    mask = _read_mask()
    os.umask(os.umask(mask) | mask)


@contextmanager
def create_private_files() -> Iterator[None]:
    """Restrict new files within this context, as :func:`restrict_new_files` does.

    Raises:
        InputError: If ``CLINIE_UMASK`` is not an octal number from 000 to 777.
    """
    mask = _read_mask()
    before = os.umask(mask)
    os.umask(before | mask)
    try:
        yield
    finally:
        os.umask(before)


def restrict_folder(folder: Path) -> None:
    """Remove the permissions that new files would not have from a folder and everything in it.

    Copies of packages and backbones keep the permissions of the originals.

    Args:
        folder: The folder.

    Raises:
        InputError: If ``CLINIE_UMASK`` is not an octal number from 000 to 777.
    """
    mask = _read_mask()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~mask)


def _read_mask() -> int:
    value = os.environ.get(UMASK_VARIABLE)
    if not value:
        return DEFAULT_UMASK
    if len(value) > 4 or not all(digit in "01234567" for digit in value) or int(value, 8) > 0o777:
        fail(UMASK_VARIABLE, f"{value[:10]!r} is no mask", allowed="an octal number, such as 077 or 027")
    return int(value, 8)
