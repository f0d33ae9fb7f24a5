"""Home folders that were moved or copied: MLflow's database and the ledger store absolute paths of files.

A home folder records its own path. When it is opened at another path, the paths in MLflow's database are changed once,
and those in the ledger, which is append-only, whenever they are used. Nothing is read from or written to the old path.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

__all__ = ["Relocation", "is_moved", "record_path"]

PATHS_FILE = "paths.json"
"""File in a home folder with the paths at which it was opened, the current one last."""
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    ("logged_models", "artifact_location"),
)
"""Columns of MLflow's database that hold addresses of files."""


def record_path(root: Path) -> None:
    """Record the path of a home folder; adapt MLflow's database if the folder was moved or copied.

    The caller prevents that two processes call this at the same time.

    Args:
        root: Absolute path of the folder.
    """
    paths = _read_paths(root)
    here = str(root)
    if paths and paths[-1] == here:
        return
    database = root / "mlflow.db"
    if paths and database.is_file():
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for old in paths:
                _replace_prefix(connection, Path(old).as_uri(), root.as_uri())
    part = root / f"{PATHS_FILE}.new"
    part.write_text(json.dumps([*(path for path in paths if path != here), here]), encoding="utf-8")
    part.replace(root / PATHS_FILE)


def is_moved(root: Path) -> bool:
    """Return whether :func:`record_path` has to adapt MLflow's database before its addresses are used.

    Args:
        root: Absolute path of the folder.
    """
    paths = _read_paths(root)
    return not paths or paths[-1] != str(root)


@dataclass(frozen=True)
class Relocation:
    """Conversion of stored addresses of files in a home folder that was moved.

    Args:
        root: Absolute path of the folder.
        former: Other paths at which it was opened.
    """

    root: Path
    former: tuple[str, ...]

    @classmethod
    def read(cls, root: Path) -> Relocation:
        """Read the paths that a home folder has recorded."""
        return cls(root, tuple(path for path in _read_paths(root) if path != str(root)))

    def apply(self, uri: str) -> str:
        """Return the present address of a file; one outside the folder's former paths is returned unchanged."""
        for old in self.former:
            prefix = Path(old).as_uri() + "/"
            if uri.startswith(prefix):
                return f"{self.root.as_uri()}/{uri.removeprefix(prefix)}"
        return uri


def _read_paths(root: Path) -> list[str]:
    try:
        paths = json.loads((root / PATHS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        former = _find_former_path(root)
        return [former] if former else []
    return [str(path) for path in paths]


def _find_former_path(root: Path) -> str | None:
    """Return the path of a home folder that has not recorded it, from the addresses of its studies' artifacts."""
    database = root / "mlflow.db"
    if not database.is_file():
        return None
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        try:
            rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        except sqlite3.DatabaseError:  # MLflow has not created its tables, or reports the fault itself
            return None
    for name, location in rows:
        prefix, found, rest = str(location).rpartition("/artifacts/")
        if found and rest == name and prefix.startswith("file:///"):
            return unquote(prefix.removeprefix("file://"))
    return None


def _replace_prefix(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in COLUMNS:
        if not connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone():
            continue  # the database is of another version of MLflow
        connection.execute(
            f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?',
            (new, len(old) + 1, len(old) + 1, f"{old}/"),
        )
