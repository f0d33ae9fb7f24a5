"""The home folder, and the URLs of a ledger, MLflow or object storage outside it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import clinie_core
from clinie_core.errors import fail
from search.storage.home_version import check_version

__all__ = ["LEDGER_VARIABLE", "STORAGE_VARIABLE", "Home", "compute_source_digest", "hide_password"]

LEDGER_VARIABLE = "CLINIE_LEDGER"
STORAGE_VARIABLE = "CLINIE_STORAGE"


@dataclass(frozen=True)
class Home:
    """A home folder with the ledger, MLflow database, artifacts and checkpoints of its studies.

    ``ledger`` and ``storage`` default to the environment variables ``CLINIE_LEDGER`` and ``CLINIE_STORAGE``. They are
    no command-line options, because other users of the machine can read passwords in a command line.

    Args:
        root: Absolute path of the folder.
        server: URL of an MLflow server or database; None for a database in the folder.
        ledger: URL of the ledger's database; None for a journal file in the folder.
        storage: URL of object storage for checkpoints and artifacts, such as ``s3://bucket/clinie``; None for the
            folder.
    """

    root: Path
    server: str | None = None
    ledger: str | None = field(default_factory=lambda: os.environ.get(LEDGER_VARIABLE) or None)
    storage: str | None = field(default_factory=lambda: os.environ.get(STORAGE_VARIABLE) or None)

    @classmethod
    def open(cls, folder: Path, server: str | None = None, *, create: bool = False) -> Home:
        """Open a home folder.

        Args:
            folder: Path of the folder, absolute or relative, with ``~`` allowed.
            server: URL of an MLflow server or database; None for a database in the folder.
            create: Create the folder if it is missing, and check that it is writable.

        Raises:
            InputError: If the folder is missing (without ``create``), not writable, or of a newer version of clinie.
        """
        root = folder.expanduser().resolve()
        if create:
            try:
                root.mkdir(parents=True, exist_ok=True)
                probe = root / f".writable-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                fail("--home", f"{root} cannot be written: {error.strerror}", allowed="a writable folder")
        elif not root.is_dir():
            fail(
                "--home",
                f"no folder {root}",
                allowed="a folder that a search has created",
                remedy="pass the --home of the search",
            )
        check_version(root)
        return cls(root, server)

    @classmethod
    def open_registry(cls, folder: Path, server: str | None = None) -> Home:
        """Open a home folder for its registered models; it may be missing if a server has the registry.

        Args:
            folder: Path of the folder.
            server: URL of an MLflow server or database; None for a database in the folder.

        Raises:
            InputError: If the folder is missing and no server is given, or it is of a newer version of clinie.
        """
        if server is not None and not folder.expanduser().exists():
            return cls(folder.expanduser().resolve(), server)
        return cls.open(folder, server)

    @property
    def ledger_file(self) -> Path:
        """Path of the ledger's journal file."""
        return self.root / "ledger.journal"

    @property
    def tracking_uri(self) -> str:
        """URL of MLflow: a server or a database."""
        return self.server or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> str:
        """URL of MLflow's artifacts."""
        return self._object_url("artifacts") or (self.root / "artifacts").as_uri()

    def _object_url(self, path: str) -> str | None:
        """Return the URL of a path in object storage; None without object storage."""
        return f"{self.storage.rstrip('/')}/{path}" if self.storage else None

    def disk_usage_mb(self, study: str) -> float:
        """Return the size in MB of a study's files and artifacts in the home folder, without object storage."""
        folders = [self.study_folder(study), self.root / "artifacts" / study]
        files = (file for folder in folders for file in folder.rglob("*"))
        return (
            sum(status.st_size for status in map(_stat_if_exists, files) if status and stat.S_ISREG(status.st_mode))
            / 1e6
        )

    def artifact_folder(self, study: str, run_id: str) -> Path | None:
        """Return the folder of a run's artifacts; None if MLflow stores them elsewhere than in this folder."""
        if self.server is not None or self.storage is not None:
            return None
        return self.root / "artifacts" / study / run_id / "artifacts"

    def trials_url(self, study: str) -> str | None:
        """Return the object-storage URL for the training state of a study's trials; None for the home folder."""
        return self._object_url(f"studies/{study}/trials")

    def ray_folder(self, study: str) -> str:
        """Return the path or URL of Ray Train's and Tune's own files, which every node must be able to reach."""
        return self._object_url(f"studies/{study}/ray") or str(self.study_folder(study) / "ray")

    def study_folder(self, study: str) -> Path:
        """Return the folder of one study."""
        return self.root / "studies" / study

    def trial_folder(self, study: str, number: int) -> Path:
        """Return the folder of one trial's checkpoints and training state."""
        return self.study_folder(study) / "trials" / f"{number:05d}"


def hide_password(uri: str) -> str:
    """Return a URL without its password."""
    scheme, separator, rest = uri.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{account.partition(':')[0]}{at}{host}"


def _stat_if_exists(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except FileNotFoundError:  # a search may remove a file after it was listed
        return None


@cache
def compute_source_digest() -> str:
    """Return the sha256 of clinie's source files; driver and workers must run the same code."""
    state = hashlib.sha256()
    for package in (Path(clinie_core.__file__).parent, Path(__file__).parent.parent):
        for file in sorted(package.rglob("*.py")):
            state.update(f"{package.name}/{file.relative_to(package)}".encode())
            state.update(file.read_bytes())
    return state.hexdigest()
