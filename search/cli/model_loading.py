"""Registered models for the commands that predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clinie_core.garbage_collection import suspend_collection

if TYPE_CHECKING:
    from clinie_core.inference.extractor import Extractor

__all__ = ["load_extractor"]


def load_extractor(model: str, home: Path, tracking_uri: str | None) -> Extractor:
    """Load a registered model, and the packages that it needs.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        home: Home folder.
        tracking_uri: Address of an MLflow server; None for that of the home folder.

    Raises:
        InputError: If the registry has no such model, or cannot be used.
    """
    with suspend_collection():
        from search.promotion.model_files import load_extractor
        from search.storage.home import Home

        return load_extractor(Home.open_registry(home, tracking_uri), model)
