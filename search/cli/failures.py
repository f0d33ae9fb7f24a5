"""One line for errors of disks and databases that no part of clinie has converted, such as a full disk."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator

from clinie_core.errors import Problem
from clinie_core.shown_ids import hide_file_names

__all__ = ["find_storage_fault"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
BROKEN = {errno.EIO, errno.ESTALE}
DATABASE_PACKAGES = ("mlflow", "sqlalchemy", "optuna")
FREE_SPACE = "free some space and repeat the command"


def find_storage_fault(error: BaseException) -> tuple[Problem, bool] | None:
    """Return the fault of a disk or database that has caused an error.

    Args:
        error: An error, whose causes are examined too.

    Returns:
        The fault, and whether the user can only correct it outside of clinie's input, such as a full disk; None if
        the error has other causes. The fault contains the path, but no message of another library.
    """
    for cause in _list_causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL | READ_ONLY | BROKEN:
            place = hide_file_names(os.fsdecode(cause.filename)) if cause.filename is not None else "a file"
            found = f"cannot be read or written: {os.strerror(cause.errno)}"
            if cause.errno in READ_ONLY:
                return Problem(place, found, remedy="change its permissions, or name another place"), False
            return Problem(place, found, remedy=FREE_SPACE if cause.errno in FULL else "check the disk"), True
        if isinstance(cause, sqlite3.Error) or type(cause).__module__.startswith(DATABASE_PACKAGES):
            message = str(cause)
            if "disk is full" in message or os.strerror(errno.ENOSPC) in message:
                return Problem("--home", "a database cannot be written: the disk is full", remedy=FREE_SPACE), True
            if "readonly database" in message:
                return Problem("--home", "a database cannot be written", allowed="a folder that you can write"), False
            if "database is locked" in message:
                remedy = "wait until the other process ends, and repeat the command"
                return Problem("--home", "another process has locked a database", remedy=remedy), True
            if "disk I/O error" in message:
                return Problem("--home", "a database cannot be read or written", remedy="check the disk"), True
    return None


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: BaseException | None = error
    while pending is not None and id(pending) not in seen:
        seen.add(id(pending))
        yield pending
        pending = pending.__cause__ or pending.__context__
