"""Registry of scorers: named sets of counting modes.

``clinie`` counts as described in :mod:`clinie_core.scoring.items`. The other scorers count as the script of a
shared task does, so that scores are comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from clinie_core.registry import Registry
from clinie_core.scoring.items import ItemCounter

__all__ = ["DEFAULT_SCORER", "SCORERS"]

DEFAULT_SCORER = "clinie"

SCORERS: Registry[Mapping[str, ItemCounter]] = Registry(
    "scorer",
    {
        DEFAULT_SCORER: "clinie_core.scoring.items:MODES",
        "n2c2-2018": "clinie_core.scoring.n2c2_2018:MODES",
    },
)
"""Each row is a mapping of counting modes that has at least ``strict`` and ``lenient``."""
