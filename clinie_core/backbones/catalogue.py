"""The catalogue of backbones: facts about published models that are available without the Hub.

The file ``catalogue.yaml`` beside this module has one entry per model. ``clinie plan`` uses an entry if a backbone's
files are not on this machine and the Hub is not available. Training always reads the model's own files.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, JsonValue

from clinie_core.config import BackboneSource, FrozenModel

__all__ = ["CatalogueEntry", "find_entry", "load_catalogue"]

FILE = Path(__file__).with_name("catalogue.yaml")


class CatalogueEntry(FrozenModel):
    """Facts about a published model. A fact that could not be verified is None.

    Args:
        name: Name of its repository on the Hub, or of the folder of a model that is not public.
        config: Arguments of its transformers configuration, including ``model_type``.
        parameters: Number of parameters of the model that transformers builds from ``config``: with the language-model
            head if the model generates text, else without head and pooler.
        published: Number of parameters that its authors state, as they round it, such as ``345M``.
        licence: Identifier of its licence on the Hub, such as ``apache-2.0``.
        gated: Whether a user has to accept its terms before the Hub gives access.
        safetensors: Whether its repository contains weights in safetensors format.
        source: Where the facts come from.
    """

    name: str
    config: dict[str, JsonValue]
    parameters: int = Field(ge=1)
    published: str | None = None
    licence: str | None = None
    gated: bool | None = None
    safetensors: bool | None = None
    source: str

    @property
    def terms(self) -> str:
        """Licence and gating as text."""
        gate = "" if self.gated is None else ", gated" if self.gated else ", not gated"
        return f"licence {self.licence or 'unknown'}{gate}"

    def make_stand_in(self, name: str) -> BackboneSource:
        """Return a backbone of the same architecture with random weights.

        Args:
            name: Name of the backbone in the space.
        """
        return BackboneSource(name=name, scratch=dict(self.config), allow_frozen=True)


@cache
def load_catalogue() -> dict[str, CatalogueEntry]:
    """Return all entries by name, in alphabetical order."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    entries = {name: CatalogueEntry(name=name, **facts) for name, facts in content.items()}
    return dict(sorted(entries.items(), key=lambda item: item[0].lower()))


def find_entry(source: BackboneSource) -> CatalogueEntry | None:
    """Return the entry of a backbone, or None.

    A repository is found by its name, a local folder by its last part.

    Args:
        source: The backbone.
    """
    catalogue = load_catalogue()
    if source.hub is not None:
        return catalogue.get(source.hub)
    if source.folder is not None and source.package is None and source.gguf is None:
        return catalogue.get(Path(source.folder).name)
    return None
