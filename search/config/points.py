"""Validation of the points to evaluate first: their paths, their values, and the branches that they select."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from clinie_core.config import RENAMED_KEYS
from search.config.domains import Fixed
from search.config.parsing import PARTS, Faults
from search.config.search_space import SearchSpace

__all__ = ["check_points"]


def check_points(space: SearchSpace, faults: Faults, *, has_unknown_backbones: bool) -> None:
    """Check that each point is a part of a configuration of the space.

    Args:
        space: The space, without the dimensions that have a fault.
        faults: Receives the faults.
        has_unknown_backbones: Whether a backbone has a fault, so that dimensions may be missing.
    """
    for index, point in enumerate(space.file.algorithm.points_to_evaluate):
        where = f"algorithm.points_to_evaluate.{index}"
        if _check_values(space, point, where, faults, has_unknown_backbones=has_unknown_backbones):
            _check_branches(space, point, where, faults)


def _check_values(
    space: SearchSpace, point: Mapping[str, JsonValue], where: str, faults: Faults, *, has_unknown_backbones: bool
) -> bool:
    """Check the paths of a point and each value on its own; return whether all are legal."""
    known, legal = dict(space.dimensions()), True
    for path, value in point.items():
        head, last = path.partition(".")[0], path.rpartition(".")[2]
        if path in known:
            domain = known[path]
            if domain.contains(value):
                continue
            legal = False
            allowed = f"only {domain}, which is not searched" if isinstance(domain, Fixed) else str(domain)
            faults.add(f"{where}.{path}", f"found {value!r}", allowed=allowed)
            continue
        legal = False
        if last in RENAMED_KEYS:
            renamed = f"{path.removesuffix(last)}{RENAMED_KEYS[last]}"
            faults.add(f"{where}.{path}", "renamed key", remedy=f"write {renamed}")
        elif head not in space.file.space or not (
            faults.covers(f"space.{head}") or (head in PARTS and has_unknown_backbones)
        ):
            faults.add(f"{where}.{path}", "not a dimension of the space", allowed="allowed: " + ", ".join(known))
    return legal


def _check_branches(space: SearchSpace, point: Mapping[str, JsonValue], where: str, faults: Faults) -> None:
    """Check that one configuration can have all dimensions of a point."""
    names = [source.name for source in space.backbones if point.get("backbone", source.name) == source.name]
    missing = sorted((set(point) - space.list_available_dimensions(name, point) for name in names), key=len)
    for path in sorted(missing[0]) if missing else ():
        found = "no configuration with the other values of this point has this dimension"
        faults.add(f"{where}.{path}", found, remedy="remove it, or select the branch or backbone that has it")
