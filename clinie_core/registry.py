"""Registries that map a name to a class, which is imported when it is first requested.

A registry is built from a dict of ``"name": "module:Class"``. Listing the names imports nothing, so the
command line starts fast, and no import has the side effect of registering a class.
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
    """A collection of names that loads the class of a name on request.

    Args:
        noun: What an entry is, for messages ("fine-tuning method").
        rows: Maps each name to ``"module:Class"``.
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
        """Import and return the class registered under a name.

        Args:
            name: A registered name.
            where: File or key path that contains the name, for the message.

        Raises:
            InputError: If the name is not registered.
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
