"""Priors: values of dimensions that are probably good, from the space file or the list that comes with clinie."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import Field

from clinie_core.config import FrozenModel
from search.config.domains import Domain, OneOf, Range, Scalar

__all__ = ["Prior", "PriorEntry", "find_prior", "load_shipped_priors"]

DEFAULT_SHARE = 0.6


class Prior(FrozenModel):
    """A value that is probably good.

    Args:
        value: The value, legal in its domain.
        share: For a choice, the probability of drawing it.
        source: Where the value comes from.
    """

    value: str | int | float | bool
    share: float = DEFAULT_SHARE
    source: str = "the space file"


class PriorEntry(FrozenModel):
    """An entry of ``priors.yaml``, which documents the fields."""

    dimension: str
    value: str | int | float | bool | dict[int, float]
    share: float = Field(default=DEFAULT_SHARE, gt=0, lt=1)
    source: str = Field(min_length=1)

    def value_at(self, width: int) -> Scalar:
        """Return the value for a backbone whose hidden states have this width."""
        if not isinstance(self.value, dict):
            return self.value
        return _interpolate(self.value, width)


def _interpolate(points: Mapping[int, float], width: int) -> float:
    """Interpolate linearly between the logarithms of width and value; constant beyond the ends."""
    widths = sorted(points)
    if width <= widths[0]:
        return points[widths[0]]
    for low, high in itertools.pairwise(widths):
        if width <= high:
            position = math.log(width / low) / math.log(high / low)
            return math.exp((1 - position) * math.log(points[low]) + position * math.log(points[high]))
    return points[widths[-1]]


@functools.cache
def load_shipped_priors() -> tuple[PriorEntry, ...]:
    """Load the priors that come with clinie."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return tuple(PriorEntry.model_validate(entry) for entry in content)


def find_prior(path: str, domain: Domain, width: int) -> Prior | None:
    """Return the prior of a dimension: the one in the space file, else a shipped one that is legal in the domain.

    Args:
        path: Path of the dimension.
        domain: Its domain.
        width: Width of the backbone's hidden states.

    Returns:
        None for a dimension without a prior. A shipped value outside a range is moved to the range's nearest end.
    """
    if not isinstance(domain, (OneOf, Range)):
        return None
    if domain.prior is not None:
        return Prior(value=domain.prior)
    for entry in load_shipped_priors():
        if not fnmatchcase(path, entry.dimension):
            continue
        value = entry.value_at(width)
        if isinstance(domain, Range) and isinstance(value, (int, float)):
            return Prior(value=min(domain.high, max(domain.low, value)), share=entry.share, source=entry.source)
        if isinstance(domain, OneOf) and value is not None and value in domain.choices:
            return Prior(value=value, share=entry.share, source=entry.source)
    return None
