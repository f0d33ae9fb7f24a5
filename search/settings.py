"""Where a study keeps what: everything is under one home folder unless a URL says otherwise."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import clinie_core
from clinie_core.errors import fail

__all__ = ["Home", "source_digest"]


@dataclass(frozen=True)
class Home:
    """The home folder: ledger, MLflow database, artifacts and checkpoints of all its studies.

    Args:
        root: The folder, absolute.
        server: URL of an MLflow server or database; None for a database in the folder.
    """

    root: Path
    server: str | None = None

    @classmethod
    def at(cls, folder: Path, server: str | None = None, *, create: bool = False) -> Home:
        """Take a folder as home.

        Args:
            folder: Any path.
            server: As for the class.
            create: Make it if it is not there, and check that it can be written.

        Raises:
            InputError: If it is missing (without ``create``) or cannot be written.
        """
        root = folder.expanduser().resolve()
        if create:
            try:
                root.mkdir(parents=True, exist_ok=True)
                probe = root / f".writable-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                fail("--home", f"{root} cannot be written: {error.strerror}", "a folder that can be written")
        elif not root.is_dir():
            fail("--home", f"no folder {root}", "a folder that a search has made", "pass the --home of the search")
        return cls(root, server)

    @property
    def ledger_file(self) -> Path:
        """Optuna's journal, the record of all trials."""
        return self.root / "ledger.journal"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is."""
        return self.server or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "artifacts"

    def study_folder(self, study: str) -> Path:
        """What belongs to one study alone."""
        return self.root / "studies" / study

    def trial_folder(self, study: str, number: int) -> Path:
        """Checkpoints of one trial while it runs."""
        return self.study_folder(study) / "trials" / f"{number:05d}"


@cache
def source_digest() -> str:
    """A sha256 over clinie's own sources: driver and workers must run the same code."""
    state = hashlib.sha256()
    for package in (Path(clinie_core.__file__).parent, Path(__file__).parent):
        for file in sorted(package.rglob("*.py")):
            state.update(f"{package.name}/{file.relative_to(package)}".encode())
            state.update(file.read_bytes())
    return state.hexdigest()
