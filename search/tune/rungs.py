"""Rungs: the decision whether a trial stops, from the results of all trials at the same time of training.

A trial is compared at the times ``first * factor ** k``, in epochs or seconds, with the trials that have reached the
same time before it. It continues if it is among the best ``1 / factor`` of them. A trial with a score of 0 after few
optimizer steps is compared in a later epoch.

Sources: Li et al. 2020, arXiv 1810.05934 (asynchronous successive halving); Schmucker et al. 2021, arXiv 2106.12639
(several objectives: non-dominated fronts, and within a front the order of an epsilon net).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search.config.objectives import Limit, Objective
from search.config.stopping import is_too_early

__all__ = ["Rungs", "rank_by_fronts"]

Vector = tuple[float, ...]
FRONT_MARGIN = 0.05
"""Share of an objective's range within which a trial counts as near the front.

In the replays of ``benchmarks/search/hypervolume.py``, complete trials have 0.92 of the hypervolume of a search without
stopping if the front is cut at a rung, and 0.99 with this margin.
"""


class Rungs:
    """Results of all trials at each rung.

    Args:
        first: Time of the first rung, in epochs or seconds.
        factor: Ratio of the times of two successive rungs, and of the trials that reach them.
        last: Time of the last rung; None for no end.
        objectives: Objectives of the study, the main one first.
        limits: Limits that a trial has to satisfy. Those on dev scores and on the loss are left out, because these
            metrics improve with each epoch.
    """

    def __init__(
        self,
        first: float,
        factor: float,
        last: float | None,
        objectives: Sequence[Objective],
        limits: Sequence[Limit] = (),
    ) -> None:
        self._first = first
        self._factor = factor
        self._levels = math.inf if last is None else int(math.log(last / first) / math.log(factor) + 1)
        self._objectives = objectives
        self._limits = [limit for limit in limits if not limit.improves_with_training]
        self._rungs: dict[int, dict[str, Vector]] = {}

    def report(self, trial: str, time: float, metrics: Mapping[str, float]) -> bool:
        """Add the result of a trial.

        Args:
            trial: Id of the trial.
            time: How long it has been trained, in epochs or seconds.
            metrics: Metrics of its latest epoch.

        Returns:
            Whether the trial should stop.
        """
        if time < self._first or not all(math.isfinite(metrics.get(o.metric, math.nan)) for o in self._objectives):
            return False  # an epoch without a finite score decides nothing; the next one does
        if is_too_early(self._objectives[0], metrics):
            return False
        level = min(int(math.log(time / self._first) / math.log(self._factor) + 1e-9), int(min(self._levels, 1e9)) - 1)
        if level < 0 or any(trial in rung for at, rung in self._rungs.items() if at >= level):
            return False
        rung = self._rungs.setdefault(level, {})
        own = self._make_vector(metrics)
        others = list(rung.values())
        rung[trial] = own
        if not others:
            return False
        if len(own) == 1:
            return self._is_below_cutoff(own[0], [other[0] for other in others])
        if self._is_zero_score(own) and max(other[0] for other in others) > 0:
            return True
        ranks = rank_by_fronts([*others, own])
        before = sum(rank < ranks[-1] for rank in ranks)
        return before >= math.ceil((len(others) + 1) / self._factor) and not self._is_near_front(own, others)

    def remove(self, trial: str) -> None:
        """Remove all results of a trial."""
        for rung in self._rungs.values():
            rung.pop(trial, None)

    def find_next(self, time: float) -> tuple[int, float | None] | None:
        """Return the next rung of a trial: its time, and the value of the objective that the trial needs there.

        Args:
            time: How long the trial has been trained.

        Returns:
            None after the last rung. The value is None if no trial has reached the rung, or for several objectives.
        """
        level = 0
        if time >= self._first:
            level = int(math.log(time / self._first) / math.log(self._factor) + 1e-9) + 1
        if level >= self._levels:
            return None
        at = math.ceil(self._first * self._factor**level - 1e-9)
        reached = self._rungs.get(level)
        if not reached or len(self._objectives) > 1:
            return at, None
        cutoff = _compute_percentile([vector[0] for vector in reached.values()], 1 - 1 / self._factor)
        sign = 1.0 if self._objectives[0].direction == "maximize" else -1.0
        return at, sign * cutoff if math.isfinite(cutoff) else None

    def _make_vector(self, metrics: Mapping[str, float]) -> Vector:
        """Return the objectives, higher is better; minus infinity for a trial that violates a limit."""
        signs = [1.0 if objective.direction == "maximize" else -1.0 for objective in self._objectives]
        values = [sign * metrics.get(o.metric, math.nan) for sign, o in zip(signs, self._objectives, strict=True)]
        known = [limit for limit in self._limits if math.isfinite(metrics.get(limit.metric, math.nan))]
        if any(limit.compute_violation(metrics) > 0 for limit in known):
            return (-math.inf,) * len(values)
        return tuple(values)

    def _is_near_front(self, own: Vector, others: Sequence[Vector]) -> bool:
        """Return whether no other trial is better in all objectives by :data:`FRONT_MARGIN`.

        A trial that violates a limit, or has a score of 0, does not count as near the front.
        """
        if not all(map(math.isfinite, own)) or self._is_zero_score(own):
            return False
        finite = [other for other in others if all(map(math.isfinite, other))]
        moved = tuple(np.array(own) + FRONT_MARGIN * np.ptp(np.array([*finite, own]), axis=0))
        return not any(other != own and all(a >= b for a, b in zip(other, moved, strict=True)) for other in finite)

    def _is_below_cutoff(self, value: float, others: Sequence[float]) -> bool:
        """Return whether a trial is not among the best share of the others, or has a score of 0."""
        cutoff = _compute_percentile(others, 1 - 1 / self._factor)
        if value < cutoff:
            return True
        # With many trials at 0, the cut-off is 0 and no trial is below it.
        return self._is_zero_score((value,)) and cutoff <= 0 and max(others) > 0

    def _is_zero_score(self, own: Vector) -> bool:
        return self._objectives[0].direction == "maximize" and own[0] <= 0


def rank_by_fronts(vectors: Sequence[Vector]) -> list[int]:
    """Return the place of each vector: by non-dominated front, then by the order of an epsilon net within its front.

    Equal vectors have equal places. The epsilon net begins with the vector that is best in the first objective; each
    further one has the largest distance to those before it, so that the first places cover the front.

    Args:
        vectors: Objectives, higher is better; minus infinity for a trial that violates a limit.
    """
    distinct = sorted(set(vectors), reverse=True)
    finite = [vector for vector in distinct if all(map(math.isfinite, vector))]
    order: list[Vector] = []
    rest = list(finite)
    while rest:
        front = [v for v in rest if not any(_dominates(other, v) for other in rest)]
        order += _order_by_epsilon_net(front)
        rest = [v for v in rest if v not in front]
    order += [vector for vector in distinct if vector not in finite]
    places = {vector: place for place, vector in enumerate(order)}
    return [places[vector] for vector in vectors]


def _dominates(first: Vector, second: Vector) -> bool:
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))


def _order_by_epsilon_net(front: Sequence[Vector]) -> list[Vector]:
    points = np.array(front)
    span = np.ptp(points, axis=0)
    points = points / np.where(span > 0, span, 1.0)
    chosen = [0]  # the best in the first objective
    distances = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < len(front):
        distances[chosen] = -1.0
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return [front[i] for i in chosen]


def _compute_percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile with linear interpolation; the higher of two neighbours if the lower one is infinite."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (at - math.floor(at)) * (high - low) if math.isfinite(low) else high
