"""The default portfolio: configurations that a study without history tries first."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from search.config.search_space import SearchSpace

__all__ = ["count_first_points", "find_default_points"]

TRIALS_PER_POINT = 5
"""A study has one first point for each of this many trials of its budget, and at least :data:`FEWEST_POINTS`."""
FEWEST_POINTS = 2


@functools.cache
def _load_portfolio() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))


def count_first_points(space: SearchSpace) -> int:
    """Return the number of trials of a study that are chosen before any result."""
    return max(FEWEST_POINTS, space.file.budget.trials // TRIALS_PER_POINT)


def find_default_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Return the entries of the portfolio that a space has, in their order.

    The list is empty if the space names points to evaluate first, because these serve the same purpose.
    """
    if space.file.algorithm.points_to_evaluate:
        return []
    points: list[dict[str, Any]] = []
    for entry in _load_portfolio():
        values = space.fit_point(entry)
        if values is not None and values not in points:
            points.append(values)
    return points[: count_first_points(space)]
