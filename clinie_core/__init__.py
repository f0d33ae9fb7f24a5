"""Clinical information extraction: corpora, models, training and prediction for one configuration.

This package trains, saves, loads and serves a model. It does not know that a search exists: it
imports neither Ray nor Optuna nor MLflow, so it runs in a notebook, on a bare GPU machine and
behind a served model alike.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clinie_core.inference.extractor import Extractor

try:
    __version__ = version("clinie")
except PackageNotFoundError:  # a served model carries these sources without the installed package
    __version__ = "unpackaged"

__all__ = ["__version__", "load"]


def load(folder: str | Path) -> Extractor:
    """Load a trained model: ``load(folder)("text")`` is a document with what was found.

    Args:
        folder: A checkpoint or a whole model, such as ``artifacts/extractor`` of a registered one.

    Raises:
        InputError: If there is none, or its backbone is missing or another one.
    """
    from clinie_core.inference.extractor import Extractor  # torch comes with it, which importing the package should not

    return Extractor.load(Path(folder))
