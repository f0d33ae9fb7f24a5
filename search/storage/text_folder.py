"""Check of the folder of a file with document text, so that text is not stored or shared by accident."""

from __future__ import annotations

from pathlib import Path

from clinie_core.errors import fail

__all__ = ["check_text_folder"]

MARKERS = {
    "ledger.journal": "a clinie home",
    "mlflow.db": "a clinie home",
    "mlflow.lock": "a clinie home",
    "MLmodel": "an MLflow model",
    ".git": "a git checkout",
}
"""Kind of a folder, by the name of a file or folder in it."""
ARTIFACT_FOLDERS = ("mlruns", "mlartifacts")


def check_text_folder(file: Path, home: Path) -> None:
    """Check that a file with document text is outside of places whose content is kept or shared.

    Args:
        file: The file to write.
        home: The home folder of the command, which may be empty.

    Raises:
        InputError: If the file would be in a clinie home, an artifact folder or a git checkout.
    """
    target, root = file.expanduser().resolve(), home.expanduser().resolve()
    for folder in target.parents:
        found = next((kind for name, kind in MARKERS.items() if (folder / name).exists()), None)
        found = "a clinie home" if folder == root else found
        found = "an MLflow artifact folder" if folder.name in ARTIFACT_FOLDERS else found
        if found is not None:
            fail(
                str(file),
                f"the file would contain document text, and {folder} is {found}",
                allowed="a folder outside of homes, artifacts and git checkouts",
                remedy="choose another folder, or pass --allow-folder",
            )
