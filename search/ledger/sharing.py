"""Sharing of equal values among the attributes of trials, which mostly repeat the same keys and settings.

Optuna's journal storage keeps all trials in memory. Each record is parsed on its own, so that every trial would have
its own copy of each key, name and block of its configuration. Optuna copies the mapping of all attributes of a trial
when one of them is set, but never changes the value of one.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from typing import Any

__all__ = ["SharedValues"]

MAX_BLOCKS = 512
"""Number of blocks that are remembered; blocks with drawn numbers, which never repeat, replace each other."""


class SharedValues:
    """Blocks that were read before, by their content. They must not be changed."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[str, Any] = OrderedDict()

    def share(self, value: Any) -> Any:
        """Return an equal JSON value whose texts and blocks are those of earlier values where they are equal."""
        if isinstance(value, str):
            return sys.intern(value)
        if not isinstance(value, dict | list):
            return value
        key = json.dumps(value)
        known = self._blocks.pop(key, None)
        if known is None and isinstance(value, dict):
            known = {sys.intern(name): self.share(item) for name, item in value.items()}
        elif known is None:
            known = [self.share(item) for item in value]
        self._blocks[key] = known
        if len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return known
