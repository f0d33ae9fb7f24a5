"""Proposals of whole configurations: uniform draws, draws near priors, and moves around the best trials so far.

The sampler ``auto`` draws the configurations of a study with them. A proposal depends only on its seed and on
the earlier trials.

Sources: Mallik et al. 2023, "PriorBand", NeurIPS (mixture of uniform, prior and incumbent draws); Souza et al. 2021,
ECML PKDD (priors that lose influence).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.config.domains import Range, Scalar
from search.config.priors import Prior
from search.config.search_space import SearchSpace

__all__ = ["PastTrial", "Proposal", "propose"]

Origin = Literal["uniform", "prior", "move"]
ORIGINS: tuple[Origin, ...] = ("uniform", "prior", "move")

PRIOR_SPREAD = 0.12
"""Standard deviation of a draw near a prior, as a share of the range."""
MOVE_SPREAD = 0.15
"""Standard deviation of the first moves, as a share of the range; it shrinks with the number of results."""
SMALLEST_SPREAD = 0.04
CHANGE_NUMBER, CHANGE_CHOICE = 0.7, 0.15
"""Probability that a move changes a number, or a choice."""
UNIFORM_SHARE = 0.15
RESULTS_BEFORE_MOVES = 3
LARGEST_MOVE_SHARE = 0.65
MOVE_SHARE_PER_RESULT = 0.06
DRAWS_TO_COMPARE = 3
"""Results of uniform and of prior draws, each, before the prior's share may fall."""
SCRATCH_WEIGHT = 0.1
"""Relative frequency of a backbone without pretrained weights beside those with them."""
ATTEMPTS = 20
"""Draws until a proposal may repeat an earlier configuration."""
ELITE_SHARE = 0.2
"""Share of the trials, the best ones, around which a move may start."""


@dataclass(frozen=True)
class PastTrial:
    """An earlier trial as proposals see it.

    Args:
        parameters: Values of its dimensions, by path.
        epochs: Number of its epochs so far.
        score: Its best value so far, negated if lower is better; None before its first epoch, and minus infinity for
            a trial that failed or did not fit into memory.
        origin: How it was proposed; None if it was given or drawn by another sampler.
        violation: Largest violation of a limit; at most 0 if it satisfies all of them.
    """

    parameters: Mapping[str, Any]
    epochs: int
    score: float | None
    origin: str | None = None
    violation: float = 0.0


@dataclass(frozen=True)
class Proposal:
    """A proposed configuration.

    Args:
        parameters: Values of its dimensions, by path.
        origin: How it was drawn.
    """

    parameters: Mapping[str, Scalar]
    origin: Origin


def propose(
    space: SearchSpace, seed: int, past: Sequence[PastTrial], fixed: Mapping[str, Any] | None = None
) -> Proposal:
    """Propose the configuration of a trial.

    Args:
        space: The search space.
        seed: Seed of the trial's draw.
        past: All earlier trials.
        fixed: Values that the configuration must have, by path. The others take their prior exactly, or a uniform
            draw without one.
    """
    random = np.random.default_rng(seed)
    if fixed:
        chooser = _Chooser(space, random, fixed, {}, "prior", prior_spread=0.0)
        space.suggest(chooser)
        return Proposal(chooser.parameters, "prior")
    ranked = _rank(past)
    known = {_key(trial.parameters) for trial in past}
    origin = _draw_origin(random, ranked)
    for attempt in range(1, ATTEMPTS + 1):
        parent = _draw_parent(random, ranked).parameters if origin == "move" else {}
        chooser = _Chooser(space, random, {}, parent, origin, _spread(len(ranked)))
        space.suggest(chooser)
        if _key(chooser.parameters) not in known or attempt == ATTEMPTS:
            return Proposal(chooser.parameters, origin)
    raise AssertionError("unreachable")


def _key(parameters: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(parameters.items())


def _rank(past: Sequence[PastTrial]) -> list[PastTrial]:
    """Return the trials with results, the best first.

    A trial with more epochs precedes one with fewer, because a scheduler stops the worse trials first. Trials beyond a
    limit follow all others in order of the violation, and failed trials are last.
    """

    def rate(trial: PastTrial) -> tuple[bool, float, int, float]:
        assert trial.score is not None
        failed = trial.score == -math.inf
        return not failed, -max(0.0, trial.violation), 0 if failed else trial.epochs, trial.score

    return sorted((trial for trial in past if trial.score is not None), key=rate, reverse=True)


def _spread(results: int) -> float:
    return max(SMALLEST_SPREAD, MOVE_SPREAD / math.sqrt(1 + results / 10))


def _draw_origin(random: np.random.Generator, ranked: Sequence[PastTrial]) -> Origin:
    """Draw how a configuration is proposed."""
    results = len(ranked)
    move = 0.0
    if results >= RESULTS_BEFORE_MOVES and ranked[0].score != -math.inf:
        move = min(LARGEST_MOVE_SHARE, 0.2 + MOVE_SHARE_PER_RESULT * (results - RESULTS_BEFORE_MOVES))
    uniform = UNIFORM_SHARE
    prior = max(0.0, 1 - move - uniform) * _trust_in_prior(ranked)
    weights = np.array([uniform, prior, move])
    draw = random.choice(3, p=weights / weights.sum())
    return ORIGINS[int(draw)]


def _trust_in_prior(ranked: Sequence[PastTrial]) -> float:
    """Return a factor for the prior's share: below 1 as soon as its draws rank worse than uniform draws."""
    places: dict[str, list[int]] = {"uniform": [], "prior": []}
    for place, trial in enumerate(ranked):
        if trial.origin in places:
            places[trial.origin].append(place)
    if min(len(found) for found in places.values()) < DRAWS_TO_COMPARE:
        return 1.0
    worse = float(np.mean(places["prior"])) > float(np.mean(places["uniform"]))
    return 0.25 if worse else 1.0


def _draw_parent(random: np.random.Generator, ranked: Sequence[PastTrial]) -> PastTrial:
    """Draw one of the best trials; better ones more often."""
    count = max(1, math.ceil(ELITE_SHARE * len(ranked)))
    weights = 1 / (1 + np.arange(count))
    return ranked[int(random.choice(count, p=weights / weights.sum()))]


class _Chooser:
    """A :class:`search.config.domains.Chooser` that draws one proposal and remembers its values.

    Args:
        space: The search space.
        random: Source of random numbers.
        fixed: Values that the proposal must have, by path.
        parent: Values to start from, by path; dimensions that it lacks are drawn near their prior.
        origin: How values without a parent are drawn.
        spread: Standard deviation of moves, as a share of a range.
        prior_spread: Standard deviation of draws near a prior, as a share of a range; 0 takes priors exactly.
    """

    def __init__(
        self,
        space: SearchSpace,
        random: np.random.Generator,
        fixed: Mapping[str, Any],
        parent: Mapping[str, Any],
        origin: Origin,
        spread: float = MOVE_SPREAD,
        prior_spread: float = PRIOR_SPREAD,
    ) -> None:
        self._space = space
        self._random = random
        self._fixed = fixed
        self._parent = parent
        self._uniform = origin == "uniform"
        self._spread = spread
        self._prior_spread = prior_spread
        self.parameters: dict[str, Scalar] = {}

    def _prior(self, name: str) -> Prior | None:
        if self._uniform:
            return None
        backbone = self.parameters.get("backbone")
        return self._space.find_prior(name, None if backbone is None else str(backbone))

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`search.config.domains.Chooser.draw_choice`."""
        value: Scalar
        if name in self._fixed:
            value = self._fixed[name]
        elif name in self._parent and self._parent[name] in choices and self._random.random() >= CHANGE_CHOICE:
            value = self._parent[name]
        else:
            weights = self._weigh(name, choices)
            value = choices[int(self._random.choice(len(choices), p=weights / weights.sum()))]
        self.parameters[name] = value
        return value

    def _weigh(self, name: str, choices: Sequence[Scalar]) -> NDArray[np.float64]:
        """Return the relative probabilities of choices."""
        weights = np.ones(len(choices))
        if self._uniform or len(choices) == 1:
            return weights
        prior = self._prior(name)
        if prior is not None and prior.value in choices:
            weights[:] = (1 - prior.share) / (len(choices) - 1) if self._prior_spread else 0.0
            weights[list(choices).index(prior.value)] = prior.share
        elif name == "backbone":
            unlikely = [choice in self._space.scratch_backbones for choice in choices]
            weights[unlikely] = SCRATCH_WEIGHT if self._prior_spread and not all(unlikely) else float(all(unlikely))
        return weights

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`search.config.domains.Chooser.draw_float`."""
        return float(self._draw_number(name, Range(low, high, log, integer=False)))

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`search.config.domains.Chooser.draw_int`."""
        return int(self._draw_number(name, Range(low, high, log, integer=True)))

    def _draw_number(self, name: str, domain: Range) -> float:
        value: float
        known, prior = self._parent.get(name), self._prior(name)
        if name in self._fixed:
            value = self._fixed[name]
        elif known is not None and domain.low <= known <= domain.high:
            value = known
            if self._random.random() < CHANGE_NUMBER:
                value = domain.from_unit(_draw_near(self._random, domain.to_unit(known), self._spread))
        elif prior is not None and isinstance(prior.value, (int, float)):
            value = domain.from_unit(_draw_near(self._random, domain.to_unit(prior.value), self._prior_spread))
        else:
            value = domain.from_unit(self._random.random())
        self.parameters[name] = value
        return value


def _draw_near(random: np.random.Generator, center: float, spread: float) -> float:
    """Draw from a normal distribution around a position in [0, 1], without values outside."""
    for _ in range(ATTEMPTS):
        value = float(random.normal(center, spread))
        if 0 <= value <= 1:
            return value
    return center
