"""Reading of space files: YAML, overrides from the command line, and the spaces that come with clinie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from clinie_core.config import convert_validation_error
from clinie_core.errors import ErrorList, fail
from search.config.space_file import SpaceFile

__all__ = ["find_shipped_spaces", "parse_space_file", "read_space_content", "read_space_file"]

BLOCKS_WITH_DEFAULTS = ("budget", "algorithm", "resources", "backbones")
PLACEHOLDERS: dict[str, Any] = {"version": 1, "study": "unnamed", "corpus": {"path": "."}, "space": {}}
"""Stand-ins for required blocks that are missing or invalid, so that the other blocks can still be checked."""


def find_shipped_spaces() -> dict[str, Path]:
    """Find the spaces that come with clinie.

    Returns:
        Path of each space file, by name: in the installed package, else in the checkout.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "spaces", package.parent / "spaces"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def read_space_file(name: str, overrides: Iterable[str] = ()) -> tuple[SpaceFile, str]:
    """Read a space by file or shipped name and check the form of its blocks.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value`` with the value as YAML.

    Returns:
        The space file, and its name for messages.

    Raises:
        InputError: If the file is missing, is not YAML, or a block is invalid.
    """
    content, where = read_space_content(name, overrides)
    errors = ErrorList()
    file = parse_space_file(content, where, errors)
    errors.raise_if_any()
    return file, where


def read_space_content(name: str, overrides: Iterable[str] = ()) -> tuple[dict[str, Any], str]:
    """Read the YAML of a space by file or shipped name and apply overrides to it.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value`` with the value as YAML.

    Returns:
        The mapping, and the file's name for messages.

    Raises:
        InputError: If the file is missing or is not a YAML mapping, or an override is malformed.
    """
    shipped = find_shipped_spaces()
    file = Path(name)
    if not file.is_file() and name in shipped:
        file = shipped[name]
    where = file.name
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        fail(name, "no such space", allowed="a YAML file, or one of " + ", ".join(shipped))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        fail(f"{where}{line}", f"not YAML: {getattr(error, 'problem', error)}", remedy="check indentation and brackets")
    if not isinstance(content, dict):
        fail(where, "not a mapping", allowed="version, study, corpus, space ...", remedy="see `clinie spaces`")
    for override in overrides:
        _apply_override(content, override)
    return content, where


def parse_space_file(content: Mapping[str, Any], where: str, errors: ErrorList) -> SpaceFile:
    """Parse the blocks of a space file.

    Args:
        content: The mapping from :func:`read_space_content`.
        where: The file's name, for messages.
        errors: Receives every fault. Entries with a fault have their default in the result, so that
            the caller can check the other entries.
    """
    try:
        return SpaceFile.model_validate(content)
    except ValidationError as error:
        is_single = isinstance(content.get("resources"), dict)  # the only class has no number in key paths
        problems = convert_validation_error(error, where)
        errors.extend(
            replace(p, where=p.where.replace(": resources.0", ": resources", 1)) if is_single else p for p in problems
        )
        sound = {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in content.items()
            if isinstance(key, str)
        }
        for item in error.errors():
            block, *inner = item["loc"]
            if block == "resources" and is_single:
                inner = inner[1:]
            if block in BLOCKS_WITH_DEFAULTS and inner and isinstance(sound.get(str(block)), dict):
                sound[str(block)].pop(inner[0], None)
            else:
                sound.pop(str(block), None)
        return SpaceFile.model_validate({**PLACEHOLDERS, **sound})


def _apply_override(content: dict[str, Any], override: str) -> None:
    """Set the value at a key path; mappings on the path are created, entries of a list have their 0-based index."""
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        fail(override, "not an override", allowed="key.path=value, for example budget.trials=4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        fail(override, "the value is not YAML", allowed="a number, a word, or {choose: [...]}")
    inner: Any = content
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        if isinstance(inner, list):
            if not key.isdigit() or int(key) >= len(inner):
                found = f"{'.'.join(keys[:depth])} is a list of {len(inner)}"
                fail(override, found, allowed=f"an index from 0 to {len(inner) - 1}")
            index: Any = int(key)
        else:
            index = key
            if not is_last and not isinstance(inner.get(key), (dict, list)):
                inner[key] = {}
        if is_last:
            inner[index] = value
        else:
            inner = inner[index]
            if not isinstance(inner, (dict, list)):
                fail(override, f"{'.'.join(keys[: depth + 1])} is not a mapping", allowed="a path of keys")
