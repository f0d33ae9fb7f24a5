"""The space of a study as the ledger stores it: with digests instead of the paths of its corpora."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clinie_core.errors import ErrorList
from search.config.space_file import SpaceFile
from search.storage.corpus_paths import conceal_path, find_path, get_path_file, is_concealed, record_path
from search.storage.home import Home

__all__ = ["SPACE", "conceal_paths", "list_changed_keys", "locate_corpora", "read_stored_space", "store_space"]

SPACE = "space"
"""Name of the study's attribute."""


def conceal_paths(file: SpaceFile) -> SpaceFile:
    """Return a space with digests instead of the paths of its corpora."""
    concealed = (
        s if is_concealed(s.path) else s.model_copy(update={"path": conceal_path(s.path)}) for s in file.corpus
    )
    return file.model_copy(update={"corpus": tuple(concealed)})


def store_space(file: SpaceFile, home: Home) -> dict[str, Any]:
    """Store the paths of a space's corpora in the home folder, and return the attribute for the ledger.

    Args:
        file: The space with absolute paths.
        home: The home folder.
    """
    for source in file.corpus:
        record_path(home.root, source.path)
    return conceal_paths(file).model_dump(mode="json")


def read_stored_space(attributes: Mapping[str, Any]) -> SpaceFile:
    """Read the space of a study; its corpora have no paths.

    Args:
        attributes: The attributes of the study.

    Raises:
        ValidationError: If the space is that of another version of clinie, or missing.
    """
    content = attributes.get(SPACE)
    if isinstance(content, dict):
        content = {**content, "corpus": [_keep_former_name(source) for source in content.get("corpus", ())]}
    return SpaceFile.model_validate(content)


def _keep_former_name(source: dict[str, Any]) -> dict[str, Any]:
    """Return a stored corpus with the name that an earlier version of clinie derived from its folder."""
    path = str(source.get("path", ""))
    return source if source.get("name") or is_concealed(path) else {**source, "name": Path(path).name}


def list_changed_keys(stored: SpaceFile, new: SpaceFile) -> list[str]:
    """Return the paths of the keys whose values differ between two spaces, such as ``budget.trials``."""
    return sorted(_compare(stored.model_dump(mode="json"), new.model_dump(mode="json")))


def _compare(stored: object, new: object, path: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(new, dict):
        for key in stored.keys() | new.keys():
            yield from _compare(stored.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif stored != new:
        yield path


def locate_corpora(file: SpaceFile, home: Home) -> SpaceFile:
    """Return a stored space with the paths of its corpora.

    Args:
        file: The space from :func:`read_stored_space`.
        home: The home folder of its study.

    Raises:
        InputError: If the home folder does not know a path.
    """
    errors, sources = ErrorList(), []
    for source in file.corpus:
        path = find_path(home.root, source.path) if is_concealed(source.path) else source.path
        if path is None:
            remedy = f"write the path of its folder to {get_path_file(home.root, source.path)}"
            errors.add("corpus.path", f"this home has not stored where the corpus {source.title} is", remedy=remedy)
        else:
            sources.append(source.model_copy(update={"path": path}))
    errors.raise_if_any()
    return file.model_copy(update={"corpus": tuple(sources)})
