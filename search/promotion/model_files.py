"""Files of registered models: those in a home folder are found without MLflow, whose import takes seconds.

MLflow's own database of the home folder is read. Whatever is not found there, or not as a plain local folder, is left
to MLflow, which also reports all errors.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from clinie_core.inference.extractor import Extractor
from search.promotion.model_names import ModelReference, parse_model_reference
from search.storage.home import Home
from search.storage.relocation import is_moved

__all__ = ["EXTRACTOR", "find_extractor", "load_extractor"]

EXTRACTOR = "artifacts/extractor"
"""Path of the extractor among the files of a registered model."""
LOGGED_MODEL = "models:/"
"""Start of the address of a logged model, which a version refers to."""


def load_extractor(home: Home, model: str) -> Extractor:
    """Load the extractor of a registered model.

    Args:
        home: Home folder, or the server that it names.
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.

    Raises:
        InputError: If the registry has no such model, or cannot be used.
    """
    folder = find_extractor(home, model)
    if folder is not None:
        return Extractor.load(folder)
    from search.promotion.registration import load_registered_extractor
    from search.tracking.connection import connect

    connect(home)
    return load_registered_extractor(model)


def find_extractor(home: Home, model: str, *, where: str = "--model") -> Path | None:
    """Return the folder of an extractor that the registry of a home folder has on this machine.

    Args:
        home: Home folder.
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        where: Option that the user passed the model with, for the error message.

    Returns:
        The folder; None if MLflow has to find the model, or to explain why it is missing.

    Raises:
        InputError: If the name has another form.
    """
    reference = parse_model_reference(model, where)
    database = home.root / "mlflow.db"
    if home.server is not None or not database.is_file() or is_moved(home.root):
        return None
    address = f"file:{quote(str(database))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
            location = _find_location(connection, reference)
    except sqlite3.Error:  # damaged, locked, or of another version of MLflow
        return None
    parts = urlsplit(location or "")
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment:
        return None
    folder = Path(unquote(parts.path)) / EXTRACTOR
    return folder if folder.is_dir() else None


def _find_location(connection: sqlite3.Connection, reference: ModelReference) -> str | None:
    """Return the address of a version's files, or None."""
    version = reference.version
    if reference.alias:
        rows = connection.execute(
            "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?",
            (reference.name, reference.alias),
        ).fetchall()
        if len(rows) != 1:  # none, or one in each of several workspaces
            return None
        version = rows[0][0]
    rows = connection.execute(
        "SELECT storage_location, source FROM model_versions"
        " WHERE name = ? AND version = ? AND current_stage != 'Deleted_Internal'",
        (reference.name, version),
    ).fetchall()
    if len(rows) != 1:
        return None
    location = str(rows[0][0] or rows[0][1])
    if not location.startswith(LOGGED_MODEL):
        return location
    rows = connection.execute(
        "SELECT artifact_location FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'",
        (location.removeprefix(LOGGED_MODEL),),
    ).fetchall()
    return str(rows[0][0]) if len(rows) == 1 else None
