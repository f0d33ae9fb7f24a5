"""Version record of a home folder: which layout its files have, and which clinie wrote it last.

Versions of clinie with the same layout can share a home folder. A folder of a newer layout is not opened, because an
older version would misread its files.
"""

from __future__ import annotations

import json
from pathlib import Path

from clinie_core import __version__
from clinie_core.errors import fail

__all__ = ["LAYOUT", "check_version", "record_version"]

LAYOUT = 1
"""Number of the layout of a home folder's files; a change that older versions cannot read increases it."""
FILE = "version.json"


def check_version(root: Path) -> None:
    """Check that this version of clinie can use a home folder; a folder without a record has the first layout.

    Raises:
        InputError: If the folder has a newer layout, or its record cannot be read.
    """
    layout, version = _read(root)
    if layout > LAYOUT:
        found = f"{root} was written by clinie {version}, and this is clinie {__version__}"
        fail("--home", found, allowed="a folder of this or an earlier version", remedy=f"install clinie {version}")


def record_version(root: Path) -> None:
    """Record that this version writes to a home folder.

    Raises:
        InputError: As for :func:`check_version`.
    """
    check_version(root)
    if _read(root) == (LAYOUT, __version__):
        return
    part = root / f"{FILE}.new"
    part.write_text(json.dumps({"layout": LAYOUT, "clinie": __version__}), encoding="utf-8")
    part.replace(root / FILE)


def _read(root: Path) -> tuple[int, str]:
    try:
        content = json.loads((root / FILE).read_text(encoding="utf-8"))
        return int(content["layout"]), str(content["clinie"])
    except FileNotFoundError:
        return LAYOUT, ""
    except (ValueError, KeyError, TypeError):
        return fail(str(root / FILE), "not a version record", allowed='{"layout": 1, "clinie": "0.1.0"}')
