"""Where a study keeps what: everything is under one home folder unless a URL says otherwise."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import clinie_core
from clinie_core.errors import fail

__all__ = ["LEDGER_VARIABLE", "STORAGE_VARIABLE", "Home", "compute_source_digest", "hide_password"]

LEDGER_VARIABLE = "CLINIE_LEDGER"
STORAGE_VARIABLE = "CLINIE_STORAGE"


@dataclass(frozen=True)
class Home:
    """The home folder: ledger, MLflow database, artifacts and checkpoints of all its studies.

    Args:
        root: The folder, absolute.
        server: URL of an MLflow server or database; None for a database in the folder.
        ledger: URL of the database that keeps the ledger, from the environment (a password on a command line is
            seen by everybody on the machine); None for a journal in the folder.
        storage: URL of object storage for checkpoints and artifacts, such as ``s3://bucket/clinie``, from the
            environment; None for the folder.
    """

    root: Path
    server: str | None = None
    ledger: str | None = field(default_factory=lambda: os.environ.get(LEDGER_VARIABLE) or None)
    storage: str | None = field(default_factory=lambda: os.environ.get(STORAGE_VARIABLE) or None)

    @classmethod
    def open(cls, folder: Path, server: str | None = None, *, create: bool = False) -> Home:
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
                fail("--home", f"{root} cannot be written: {error.strerror}", allowed="a folder that can be written")
        elif not root.is_dir():
            fail(
                "--home",
                f"no folder {root}",
                allowed="a folder that a search has made",
                remedy="pass the --home of the search",
            )
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
    def artifacts(self) -> str:
        """URL of MLflow's artifacts."""
        return self._stored("artifacts") or (self.root / "artifacts").as_uri()

    def _stored(self, place: str) -> str | None:
        """The URL of a place in object storage; None without one."""
        return f"{self.storage.rstrip('/')}/{place}" if self.storage else None

    def disk_usage_mb(self, study: str) -> float:
        """What a study's folder and its artifacts take of this disk; what is in object storage is not counted."""
        folders = [self.study_folder(study), self.root / "artifacts" / study]
        files = (file for folder in folders for file in folder.rglob("*"))
        return sum(status.st_size for status in map(_status, files) if status and stat.S_ISREG(status.st_mode)) / 1e6

    def trials_url(self, study: str) -> str | None:
        """Where a study's trials keep what a retry or a resume needs; None for their folders on a shared disk."""
        return self._stored(f"studies/{study}/trials")

    def ray_folder(self, study: str) -> str:
        """Where Ray Train and Tune keep their own files, which every node must reach."""
        return self._stored(f"studies/{study}/ray") or str(self.study_folder(study) / "ray")

    def study_folder(self, study: str) -> Path:
        """What belongs to one study alone."""
        return self.root / "studies" / study

    def trial_folder(self, study: str, number: int) -> Path:
        """Checkpoints of one trial while it runs."""
        return self.study_folder(study) / "trials" / f"{number:05d}"


def hide_password(uri: str) -> str:
    """A URL as it may be shown."""
    scheme, separator, rest = uri.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{account.partition(':')[0]}{at}{host}"


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except FileNotFoundError:  # a search may remove what a listing has just found
        return None


@cache
def compute_source_digest() -> str:
    """A sha256 over clinie's own sources: driver and workers must run the same code."""
    state = hashlib.sha256()
    for package in (Path(clinie_core.__file__).parent, Path(__file__).parent.parent):
        for file in sorted(package.rglob("*.py")):
            state.update(f"{package.name}/{file.relative_to(package)}".encode())
            state.update(file.read_bytes())
    return state.hexdigest()
