"""Tables: a name to a class that is loaded when it is first asked for.

A table is a plain dict of ``"name": "module:Class"``. Nothing is imported to list the names, so the
command line starts fast, and no import has the side effect of registering something.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Iterator, Mapping
from typing import Generic, TypeVar

from clinie_core.errors import fail

__all__ = ["Registry"]

Item = TypeVar("Item")


class Registry(Collection[str], Generic[Item]):
    """Looks names up and loads what they stand for.

    Args:
        noun: What a row is, for messages ("fine-tuning method").
        rows: Name to ``"module:Class"``.
    """

    def __init__(self, noun: str, rows: Mapping[str, str]) -> None:
        self.noun = noun
        self._rows = dict(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def load(self, name: str, where: str = "") -> Item:
        """Import and return the class that a name stands for.

        Args:
            name: A row's name.
            where: File or key path that asked, for the message.

        Raises:
            InputError: If the table has no such row.
        """
        if name not in self._rows:
            close = difflib.get_close_matches(name, self._rows, n=1)
            fail(
                where or self.noun,
                f"unknown {self.noun} {name!r}",
                allowed="allowed: " + ", ".join(self._rows),
                remedy=f"did you mean {close[0]!r}?" if close else "",
            )
        module, _, attribute = self._rows[name].partition(":")
        row: Item = getattr(importlib.import_module(module), attribute)
        return row
