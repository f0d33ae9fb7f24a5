"""The registered model that a service serves, and the version that the registry names for it now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from search.promotion.model_files import EXTRACTOR
from search.promotion.model_names import parse_model_reference
from search.promotion.registration import fetch_model_files, resolve_version

__all__ = ["ModelFiles", "ModelSource"]


@dataclass(frozen=True)
class ModelFiles:
    """Files of one version of a registered model.

    Args:
        version: Version number in the registry.
        folder: Local folder of its extractor.
    """

    version: str
    folder: Path


@dataclass(frozen=True)
class ModelSource:
    """A registered model by name.

    Args:
        name: ``NAME@ALIAS`` or ``NAME/VERSION``.
        client: Client of the registry.
    """

    name: str
    client: MlflowClient

    @property
    def has_alias(self) -> bool:
        """True if the name is an alias, which may move to another version."""
        return "@" in self.name

    def find_version(self) -> str:
        """Return the version that the name refers to now.

        Raises:
            InputError: If the registry has no such model.
        """
        return str(resolve_version(self.client, self.name, where="MODEL").version)

    def fetch(self) -> ModelFiles:
        """Download the files of the version that the name refers to now.

        Raises:
            InputError: If the registry has no such model.
        """
        version = self.find_version()
        title = parse_model_reference(self.name, "MODEL").name
        return ModelFiles(version, fetch_model_files(f"{title}/{version}", where="MODEL") / EXTRACTOR)
