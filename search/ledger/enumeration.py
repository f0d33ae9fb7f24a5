"""Samplers that place the trials of a study evenly in the space: a grid, and a Sobol sequence.

The configuration of a trial depends only on the study's seed and the trial's number, so that an interrupted search
draws the same configurations as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from search.config.domains import Domain, Fixed, Range
from search.config.search_space import SearchSpace

__all__ = ["GridSampler", "SobolSampler"]

LEVELS = 4
"""Number of values of a range in a grid; all integers if there are fewer."""
GOLDEN = (math.sqrt(5) - 1) / 2


class _EvenSampler(BaseSampler):
    """Base class: values are drawn one by one, so that conditional dimensions are drawn in their branch only."""

    def __init__(self, space: SearchSpace) -> None:
        self._seed = space.file.algorithm.seed
        self._domains: dict[str, Domain] = {
            path: domain for path, domain in space.dimensions() if not isinstance(domain, Fixed)
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: all values are drawn one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no value."""
        return {}


class GridSampler(_EvenSampler):
    """Grid of all choices and of four values of each range, which differ between seeds.

    The points of the grid are visited in steps of about the golden ratio of their number. The first trials therefore
    cover all dimensions, and all points have been visited after as many trials as there are points.

    Args:
        space: The search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._shift = float(np.random.default_rng(self._seed).random())
        self._rest: int | None = None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of a dimension at the trial's point."""
        if self._rest is None:
            points = _count_points(self._domains.items())
            step = next(s for s in range(max(1, int(points * GOLDEN)), points + 2) if math.gcd(s, points) == 1)
            self._rest = (trial.number * step + self._seed) % points
        domain = self._domains[param_name]
        if isinstance(param_distribution, CategoricalDistribution):
            self._rest, at = divmod(self._rest, len(param_distribution.choices))
            return param_distribution.choices[at]
        assert isinstance(domain, Range)
        levels = _count_levels(domain)
        self._rest, at = divmod(self._rest, levels)
        if domain.size <= LEVELS:
            return domain.from_unit(at / max(1, levels - 1))
        return domain.from_unit((at + self._shift) / levels)


class SobolSampler(_EvenSampler):
    """Scrambled Sobol sequence over all dimensions, conditional ones included.

    Source: Owen 1998, Journal of Complexity 14(4); Bergstra and Bengio 2012, JMLR 13.

    Args:
        space: The search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._positions: dict[str, float] | None = None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of a dimension at the trial's point."""
        if self._positions is None:
            from scipy.stats import qmc  # takes a second, and most commands do not draw

            sequence = qmc.Sobol(max(1, len(self._domains)), rng=np.random.default_rng(self._seed))
            if trial.number:  # Sobol fails for 0
                sequence.fast_forward(trial.number)
            self._positions = dict(zip(self._domains, map(float, sequence.random(1)[0]), strict=False))
        position, domain = self._positions[param_name], self._domains[param_name]
        if isinstance(param_distribution, CategoricalDistribution):
            choices = param_distribution.choices
            return choices[min(int(position * len(choices)), len(choices) - 1)]
        assert isinstance(domain, Range)
        return domain.from_unit(position)


def _count_levels(domain: Domain) -> int:
    return int(domain.size) if not isinstance(domain, Range) else int(min(domain.size, LEVELS))


def _count_points(dimensions: Iterable[tuple[str, Domain]]) -> int:
    """Return an upper bound of the number of points of the grid: that of the largest branch of each part."""
    shared, branches = 1, defaultdict[str, dict[str, int]](dict)
    for path, domain in dimensions:
        part, *inner = path.split(".")
        if len(inner) == 2 and inner[0] != "scratch":
            own = branches[part]
            own[inner[0]] = own.get(inner[0], 1) * _count_levels(domain)
        else:
            shared *= _count_levels(domain)
    return shared * math.prod(max(counts.values()) for counts in branches.values())
