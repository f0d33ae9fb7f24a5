"""The folder of files that clinie derives from backbones and can make again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["get_cache_folder"]


def get_cache_folder() -> Path:
    """Return ``CLINIE_CACHE``, by default ``clinie`` in the user's cache folder; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("CLINIE_CACHE") or Path(base) / "clinie")
