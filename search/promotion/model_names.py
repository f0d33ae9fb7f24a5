"""Names of registered models, versions and aliases."""

from __future__ import annotations

import re

from clinie_core.errors import fail

__all__ = ["check_model_name", "check_model_reference"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,199}")
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


def check_model_reference(model: str, where: str) -> None:
    """Check the form of ``NAME@ALIAS`` or ``NAME/VERSION``.

    Args:
        model: The reference.
        where: Option that the user passed it with, for the error message.

    Raises:
        InputError: If it has another form.
    """
    name, separator, rest = model.partition("@")
    valid = bool(re.fullmatch(r"[A-Za-z0-9_-]+", rest))
    if not separator:
        name, separator, rest = model.partition("/")
        valid = bool(re.fullmatch(r"[0-9]+", rest))
    if not separator or not valid or not NAME.fullmatch(name):
        fail(where, f"{model!r} names no model", allowed="NAME@champion or NAME/VERSION")
