"""Files of results that take seconds to compute, in the cache folder; they contain no document text."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

from clinie_core.backbones.cache_folder import get_cache_folder
from search.storage.home import compute_source_digest

__all__ = ["CacheFile", "compute_digest", "find_versions"]

LIBRARIES = ("torch", "transformers", "peft")


class CacheFile:
    """File with one result.

    Args:
        kind: Kind of the result, the name of a subfolder.
        key: Digest of everything on which the result depends.
    """

    def __init__(self, kind: str, key: str) -> None:
        self._file = get_cache_folder() / kind / f"{key}.json"

    def read(self) -> dict[str, Any] | None:
        """Return the result, or None if there is no readable file."""
        with suppress(OSError, ValueError):
            content = json.loads(self._file.read_text(encoding="ascii"))
            return content if isinstance(content, dict) else None
        return None

    def write(self, result: Mapping[str, Any]) -> None:
        """Keep the result; a folder that cannot be written is ignored, because the cache only saves time."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False, encoding="ascii") as part:
                part.write(json.dumps(result))
            os.replace(part.name, self._file)


@cache
def find_versions() -> tuple[str, ...]:
    """Return the digest of clinie's sources and the versions of the libraries that determine results."""
    return compute_source_digest(), *(version(name) for name in LIBRARIES)


def compute_digest(parts: Sequence[str]) -> str:
    """Return the sha256 of several strings."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode())
        state.update(b"\0")
    return state.hexdigest()
