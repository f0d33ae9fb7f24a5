"""Distributed search for clinical extraction models, on Ray, Optuna and MLflow.

The public Python API is :func:`run`, :func:`load_study`, :func:`list_studies`, :func:`plan` and the class
:class:`Study`. They are imported on first use, so that ``import search`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from clinie_core import __version__

if TYPE_CHECKING:
    from search.api import Study, list_studies, load_study, plan, run

__all__ = ["Study", "__version__", "list_studies", "load_study", "plan", "run"]


if not TYPE_CHECKING:  # for type checkers a module with __getattr__ has every attribute

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("search.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
