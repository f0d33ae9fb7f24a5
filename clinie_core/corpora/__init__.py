"""Corpora: one reader a format, one table; splits; checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.table import Table

if TYPE_CHECKING:
    from clinie_core.corpora.reader import Reader

__all__ = ["READERS"]

READERS: Table[type[Reader]] = Table("corpus format", {"brat": "clinie_core.corpora.brat:BratReader"})
