"""Folder of fetched backbones: its manifest, and the backbones that ``CLINIE_BACKBONES`` offers instead of the Hub.

``clinie backbones fetch`` writes such a folder. Driver and workers of a search read it from shared storage.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from clinie_core.config import BackboneSource, FrozenModel
from clinie_core.errors import Problem, fail
from clinie_core.output_files import write_output

__all__ = [
    "FOLDER_VARIABLE",
    "FetchedBackbone",
    "FetchedFile",
    "Manifest",
    "compute_sha256",
    "find_fetched",
    "get_backbones_folder",
]

FOLDER_VARIABLE = "CLINIE_BACKBONES"
MANIFEST = "manifest.json"
FETCHING = ".fetching"
"""Folder of files that are not complete."""
LOCK = ".lock"
COMMIT = re.compile(r"[0-9a-f]{40}")


class FetchedFile(FrozenModel):
    """Size in bytes and digest of a file."""

    size: int
    sha256: str


class FetchedBackbone(FrozenModel):
    """One commit of a repository in a folder of fetched backbones.

    Args:
        name: Name of the repository.
        commit: Hash of the commit.
        licence: Identifier of its licence, if its model card states one.
        gated: Whether the Hub gives access only to users who have accepted terms.
        files: Its files, by name.
    """

    name: str
    commit: str
    licence: str | None = None
    gated: bool = False
    files: dict[str, FetchedFile]

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.name.replace('/', '--')}--{self.commit}"

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files.values())


class Manifest(FrozenModel):
    """Content of a folder of fetched backbones.

    Args:
        version: Version of this format.
        backbones: The backbones; of several commits of a repository, the last fetched one is last.
    """

    version: int = 1
    backbones: tuple[FetchedBackbone, ...] = ()

    @classmethod
    def read(cls, folder: Path, where: str) -> Manifest:
        """Read the manifest of a folder.

        Args:
            folder: The folder.
            where: Name of the option or variable, for error messages.

        Raises:
            InputError: If there is no manifest, or it is damaged.
        """
        file = folder / MANIFEST
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError:
            allowed = "a folder that `clinie backbones fetch` wrote"
            fail(where, f"there is no {MANIFEST} in {folder}", allowed=allowed)
        except ValidationError:
            fail(where, f"{file} is damaged", remedy="fetch the backbones again")

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder."""
        write_output(folder / MANIFEST, self.model_dump_json(indent=2) + "\n")

    def find(self, name: str, revision: str | None) -> FetchedBackbone | None:
        """Return a repository's commit, or the last fetched one if the revision is no commit."""
        found = [
            backbone
            for backbone in self.backbones
            if backbone.name == name and (not COMMIT.fullmatch(revision or "") or backbone.commit == revision)
        ]
        return found[-1] if found else None

    def replace(self, backbone: FetchedBackbone) -> Manifest:
        """Return a manifest with another state of one commit, which becomes the last."""
        others = [other for other in self.backbones if other.key != backbone.key]
        return self.model_copy(update={"backbones": (*others, backbone)})

    def check(self, folder: Path) -> Iterator[Problem]:
        """Yield a problem for each missing, truncated, changed or additional file of a folder."""
        for backbone in self.backbones:
            for name, expected in backbone.files.items():
                file = folder / backbone.key / name
                where = f"{backbone.key}/{name}"
                if not file.is_file():
                    yield Problem(where, "the file is missing", remedy="fetch the backbones again")
                elif file.stat().st_size != expected.size:
                    found = f"the file has {file.stat().st_size:,} of {expected.size:,} bytes"
                    yield Problem(where, found, remedy="delete it, and fetch the backbones again")
                elif compute_sha256(file) != expected.sha256:
                    yield Problem(where, "the sha256 differs", remedy="delete it, and fetch the backbones again")
        known = {f"{backbone.key}/{name}" for backbone in self.backbones for name in backbone.files}
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder)
            if file.is_file() and path.as_posix() not in known | {MANIFEST, LOCK} and path.parts[0] != FETCHING:
                yield Problem(path.as_posix(), "the file is not in the manifest", remedy="delete it")


def get_backbones_folder() -> Path | None:
    """Return the folder that ``CLINIE_BACKBONES`` names; None if the variable is not set.

    Raises:
        InputError: If the path is relative, because the processes of a search have different working folders.
    """
    value = os.environ.get(FOLDER_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_absolute():
        fail(FOLDER_VARIABLE, f"{value} is relative", allowed="an absolute path that every node can read")
    return folder


def find_fetched(source: BackboneSource) -> tuple[Path, FetchedBackbone] | None:
    """Return the fetched copy of a backbone from the Hub and its folder, or None.

    Args:
        source: The backbone.

    Raises:
        InputError: If ``CLINIE_BACKBONES`` is set to something else than a folder of fetched backbones.
    """
    folder = get_backbones_folder() if source.hub is not None else None
    if folder is None:
        return None
    found = Manifest.read(folder, FOLDER_VARIABLE).find(str(source.hub), source.revision)
    return None if found is None else (folder / found.key, found)


def compute_sha256(file: Path) -> str:
    """Return the sha256 of a file as a hexadecimal string."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
