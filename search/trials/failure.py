"""Failure reasons of trials, free of document text."""

from __future__ import annotations

import traceback
from pathlib import Path

import clinie_core
from clinie_core.errors import InputError

__all__ = ["failure_reason"]

CORE = Path(clinie_core.__file__).parent


def failure_reason(error: BaseException, *, allow_text: bool) -> str:
    """Describe an error in one line without document text.

    An error's message may quote the text that caused it. The messages of clinie's own errors and of a missing
    module are safe; of any other error, only its type and the place where it was raised are included.

    Args:
        error: The error, with its traceback.
        allow_text: Whether to include the message of any error.
    """
    if isinstance(error, InputError | ModuleNotFoundError) or allow_text:
        return f"{type(error).__name__}: {error}".replace("\n", " | ")[:500]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(CORE)]
    places = [f"{Path(f.filename).name}:{f.lineno} ({f.name})" for f in (*frames[-1:], *ours[-1:])]
    return " at ".join(filter(None, (type(error).__name__, ", from ".join(dict.fromkeys(places)))))
