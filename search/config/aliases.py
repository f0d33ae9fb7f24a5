"""Alternative names of formulations, replaced when a space file is parsed."""

from __future__ import annotations

from pydantic import JsonValue

__all__ = ["FORMULATION_ALIASES", "FORMULATION_PARTS", "resolve_in_part", "resolve_in_point"]

FORMULATION_PARTS = ("formulation", "relation_formulation")
FORMULATION_ALIASES = {"mrc": "span_question"}
"""Alias to the name of the formulation under which it is stored."""


def resolve_in_part(part: JsonValue) -> JsonValue:
    """Replace the aliases in a formulation block of a space.

    Args:
        part: A name, a list of names, a mapping from names to parameters, or ``{choose: ...}`` with one of them.

    Raises:
        ValueError: If the block has a formulation under both of its names.
    """
    if isinstance(part, list):
        return [_resolve_name(name) for name in part]
    if not isinstance(part, dict):
        return _resolve_name(part)
    if set(part) == {"choose"}:
        return {"choose": resolve_in_part(part["choose"])}
    for alias, name in FORMULATION_ALIASES.items():
        if alias in part and name in part:
            raise ValueError(f"{alias} and {name} are the same formulation; write {name} once")
    return {FORMULATION_ALIASES.get(name, name): content for name, content in part.items()}


def resolve_in_point(point: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Replace the aliases in the paths and values of a point to evaluate.

    Args:
        point: Values of dimensions, by path, for example ``{formulation: mrc, formulation.mrc.wording: question}``.
    """
    resolved = {}
    for path, value in point.items():
        part, *inner = path.split(".")
        if part in FORMULATION_PARTS:
            path, value = ".".join([part, *(FORMULATION_ALIASES.get(key, key) for key in inner)]), _resolve_name(value)
        resolved[path] = value
    return resolved


def _resolve_name(name: JsonValue) -> JsonValue:
    return FORMULATION_ALIASES.get(name, name) if isinstance(name, str) else name
