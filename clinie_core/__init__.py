"""Clinical information extraction: corpora, models, training and prediction of one configuration.

The package trains, saves, loads and serves a model. It does not depend on the search: it imports neither
Ray nor Optuna nor MLflow, so it runs in a notebook, on a GPU machine and in a model server.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clinie_core.inference.extractor import Extractor

try:
    __version__ = version("clinie")
except PackageNotFoundError:  # a served model contains these sources without the installed package
    __version__ = "unpackaged"

__all__ = ["__version__", "load"]


def load(folder: str | Path) -> Extractor:
    """Load a trained model; ``load(folder)("text")`` returns a document with the predicted annotations.

    Args:
        folder: A checkpoint or an exported model, such as ``artifacts/extractor`` of a registered model.

    Raises:
        InputError: If the folder contains no model, or its backbone is missing or a different one.
    """
    from clinie_core.inference.extractor import Extractor  # deferred: it imports torch

    return Extractor.load(Path(folder))
