"""Values of dimensions as they are written on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import yaml
from pydantic import JsonValue

from clinie_core.errors import fail

__all__ = ["parse_changes"]

BLOCK = "space."
ALLOWED = "key.path=value, for example batch_size=16 or finetuning.lora.rank=8"


def parse_changes(arguments: Iterable[str]) -> dict[str, JsonValue]:
    """Parse the changes of a clone.

    Args:
        arguments: Each ``path=value`` with the value as YAML; the path may begin with ``space.``.

    Raises:
        InputError: If an argument has another form, or a path is given twice.
    """
    changes: dict[str, JsonValue] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        path = name.removeprefix(BLOCK)
        if not equals or not path or not text:
            fail(argument, "not a change", allowed=ALLOWED)
        if path in changes:
            fail(argument, f"{path} is given twice", allowed="one value for each dimension")
        try:
            value: JsonValue = yaml.safe_load(text)
        except yaml.YAMLError:
            return fail(argument, "the value is not YAML", allowed="a number or a word")
        if isinstance(value, str):
            with suppress(ValueError):
                value = float(value)  # YAML reads 1e-4 as text
        changes[path] = value
    return changes
