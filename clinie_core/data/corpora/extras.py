"""Import of the libraries that optional formats need."""

from __future__ import annotations

import importlib
from typing import Any

from clinie_core.errors import fail

__all__ = ["import_extra"]


def import_extra(module: str, library: str, format_: str, extra: str) -> Any:
    """Return a module of an optional library.

    Args:
        module: Name of the module.
        library: Name of the library, for the message.
        format_: Name of the format that needs it.
        extra: Name of the extra of clinie that installs it.

    Raises:
        InputError: If the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        fail("corpus.format", f"{format_} needs the library {library}", remedy=f"pip install 'clinie[{extra}]'")
