"""Garbage collection at the start of a process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["suspend_collection"]


@contextmanager
def suspend_collection() -> Iterator[None]:
    """Return a context that loads packages or a model without Python's search for reference cycles.

    The imports of torch and transformers create 400,000 objects, which live as long as the process. The collector
    would examine all of them several times during the imports, and again in each full collection afterwards. All
    objects that exist when the context ends are therefore excluded from later collections.

    Use it once, at the start of a process: reference cycles that are unused at the end of the context are not freed.
    No-op if collection is disabled, and so within another such context.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
