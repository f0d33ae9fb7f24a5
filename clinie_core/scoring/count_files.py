"""Files of counts that are stored with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinie_core.errors import fail

__all__ = ["read_counts"]


def read_counts(folder: Path, name: str) -> Any:
    """Read a JSON file of a checkpoint's folder.

    Raises:
        InputError: If the folder does not have the file.
    """
    file = folder / name
    if not file.is_file():
        fail(str(folder), f"the folder has no {name}", allowed="a checkpoint that a search stored")
    return json.loads(file.read_text(encoding="utf-8"))
