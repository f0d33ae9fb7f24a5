"""Replace a folder by a newer version such that a killed process never loses both versions.

A folder that is not empty cannot be replaced by one system call. The older version is renamed to ``NAME.old`` first;
a reader calls :func:`recover_folder` to undo a replacement that was interrupted after this rename.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

__all__ = ["recover_folder", "replace_folder"]


def replace_folder(staging: Path, folder: Path) -> None:
    """Rename a complete folder to its final name and remove the version that it replaces.

    Args:
        staging: The new version, on the same file system.
        folder: The final name.
    """
    recover_folder(folder)
    old = _old_version(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        _set_aside(folder)
    os.replace(staging, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> bool:
    """Restore the older version of a folder if :func:`replace_folder` was interrupted between its two renames.

    Call it before reading a folder that is written by :func:`replace_folder`, and only while no process is writing it.
    Several processes may call it at once.

    Args:
        folder: The final name.

    Returns:
        Whether the folder exists now.
    """
    old = _old_version(folder)
    if not folder.exists() and old.exists():
        with suppress(FileNotFoundError):  # another process has restored it in the meantime
            os.replace(old, folder)
    return folder.is_dir()


def _old_version(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _set_aside(folder: Path) -> None:
    """Rename the older version; the fault tests kill a process right after this call."""
    os.replace(folder, _old_version(folder))
