"""Names of registered models, versions and aliases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clinie_core.errors import fail

__all__ = ["ModelReference", "check_model_name", "parse_model_reference"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,199}")
REFERENCE = re.compile(rf"(?P<name>{NAME.pattern})(@(?P<alias>[A-Za-z0-9_-]+)|/(?P<version>[0-9]+))")
ALLOWED = "letters, digits, blanks and . _ - after a letter or digit, at most 200 characters"


def check_model_name(name: str, where: str) -> None:
    """Check the name of a registered model: MLflow's addresses and filters cannot hold every character.

    Args:
        name: The name.
        where: Option that the user passed the name with, for the error message.

    Raises:
        InputError: If the name holds other characters, or is empty or too long.
    """
    if not NAME.fullmatch(name):
        fail(where, f"{name!r} is no name of a model", allowed=ALLOWED)


@dataclass(frozen=True)
class ModelReference:
    """``NAME@ALIAS`` or ``NAME/VERSION``.

    Args:
        name: Name of the registered model.
        alias: The alias; empty for a version.
        version: Number of the version; empty for an alias.
    """

    name: str
    alias: str = ""
    version: str = ""


def parse_model_reference(model: str, where: str) -> ModelReference:
    """Parse ``NAME@ALIAS`` or ``NAME/VERSION``.

    Args:
        model: The reference.
        where: Option that the user passed it with, for the error message.

    Raises:
        InputError: If it has another form.
    """
    match = REFERENCE.fullmatch(model)
    if match is None:
        fail(where, f"{model!r} names no model", allowed="NAME@champion or NAME/VERSION")
    return ModelReference(match["name"], match["alias"] or "", match["version"] or "")
