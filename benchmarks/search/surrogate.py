"""Gaussian-process surrogate of a recorded table: predicts the curve of any configuration of the table's space.

A table has too few trials to look configurations up. The surrogate interpolates between them; it is fitted to one table
only, so that nothing of a table is in the surrogate of another one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from recorded_tables import RecordedTrial
from simulated_search import Curve

from clinie_core.config import TrialConfig
from search.config.domains import Range
from search.config.search_space import SearchSpace

Array = NDArray[np.float64]

RATE_SCALES = (0.15, 0.25, 0.4)
CHOICE_SCALES = (0.7, 1.2, 2.0, 4.0)
OTHER_SCALES = (0.5, 1.0, 3.0)
NOISE_SHARES = (0.03, 0.1, 0.3)
"""Candidates for the kernel's length scales and for the share of the variance that is noise."""
EPOCH_NOISE_SHARE = 0.5
"""Share of the noise's variance that differs between the epochs of one training."""


@dataclass(frozen=True)
class FeatureEncoder:
    """Encodes configurations as vectors in three groups: learning rate, choices, other numbers.

    Args:
        ranges: Ranges of the numeric dimensions, by path.
        choices: Values of the categorical dimensions, by path.
    """

    ranges: Mapping[str, Range]
    choices: Mapping[str, Sequence[object]]

    def encode(self, flat: Mapping[str, object]) -> tuple[list[float], list[float], list[float]]:
        """Encode a configuration, given by :meth:`TrialConfig.flatten`."""
        rate, others = [0.5], []
        for path, domain in self.ranges.items():
            value = flat.get(path)
            position = domain.to_unit(float(value)) if isinstance(value, (int, float)) else 0.5
            if path.endswith("learning_rate"):
                rate[0] = position if value is not None else rate[0]
            else:
                others.append(position)
        chosen = [float(flat.get(path) == value) for path, values in self.choices.items() for value in values]
        return rate, chosen, others


class Surrogate:
    """Gaussian processes with a shared kernel for the score of each epoch and for the seconds of one epoch.

    Args:
        trials: The recorded trials.
        configs: Their configurations.
        space: The table's space.
        noise: Standard deviation of the score between two seeds.
    """

    def __init__(
        self, trials: Sequence[RecordedTrial], configs: Sequence[TrialConfig], space: SearchSpace, noise: float
    ) -> None:
        domains = dict(space.dimensions())
        self._encoder = FeatureEncoder(
            {path: domain for path, domain in domains.items() if isinstance(domain, Range)},
            {path: domain.corners for path, domain in domains.items() if not isinstance(domain, Range)},
        )
        self._features = self._encode(configs)
        scores = np.array([[epoch["strict_f1"] for epoch in trial.epochs] for trial in trials])
        seconds = np.log([np.mean([epoch["cpu_seconds"] for epoch in trial.epochs]) for trial in trials])
        self._targets = np.column_stack([scores, seconds])
        self._mean = self._targets.mean(axis=0)
        self._scale = self._targets.std(axis=0) + 1e-6
        self._standardized = (self._targets - self._mean) / self._scale
        self._noise = noise
        grid = itertools.product(RATE_SCALES, CHOICE_SCALES, OTHER_SCALES, NOISE_SHARES)
        self.scales = max(grid, key=self._log_likelihood)
        kernel = self._kernel(self._features, self._features, self.scales) + self.scales[3] * np.eye(len(trials))
        self._weights = np.linalg.solve(kernel, self._standardized)
        self.rank_correlation = self._leave_one_out(kernel)

    def _encode(self, configs: Sequence[TrialConfig]) -> list[Array]:
        rows = [self._encoder.encode(config.flatten()) for config in configs]
        return [np.array([row[group] for row in rows]).reshape(len(rows), -1) for group in range(3)]

    @staticmethod
    def _kernel(left: Sequence[Array], right: Sequence[Array], scales: Sequence[float]) -> Array:
        distance = np.zeros((len(left[0]), len(right[0])))
        for a, b, scale in zip(left, right, scales[:3], strict=True):
            distance += ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2) / scale**2
        return np.asarray(np.exp(-0.5 * distance))

    def _log_likelihood(self, scales: Sequence[float]) -> float:
        """Return the log likelihood of the last epoch's scores, up to a constant."""
        kernel = self._kernel(self._features, self._features, scales) + scales[3] * np.eye(len(self._targets))
        factor = np.linalg.cholesky(kernel)
        target = self._standardized[:, -2]
        solved = np.linalg.solve(factor, target)
        variance = float(solved @ solved) / len(target)
        return -0.5 * len(target) * math.log(variance) - float(np.log(np.diag(factor)).sum())

    def _leave_one_out(self, kernel: Array) -> float:
        """Return the rank correlation between recorded final scores and their leave-one-out predictions."""
        inverse = np.linalg.inv(kernel)
        target = self._standardized[:, -2]
        predicted = target - (inverse @ target) / np.diag(inverse)
        first, second = (np.argsort(np.argsort(values)) for values in (target, predicted))
        return float(np.corrcoef(first, second)[0, 1])

    def predict(self, configs: Sequence[TrialConfig]) -> tuple[Array, Array]:
        """Return the expected scores, of shape [configurations, epochs], and the seconds of one epoch."""
        kernel = self._kernel(self._encode(configs), self._features, self.scales)
        predicted = kernel @ self._weights * self._scale + self._mean
        return np.clip(predicted[:, :-1], 0.0, 1.0), np.exp(predicted[:, -1])

    def make_curve(self, config: TrialConfig, seed: int) -> Curve:
        """Simulate a training of a configuration.

        Args:
            config: The configuration.
            seed: Seed of the noise: one part for the training, one for each epoch.
        """
        scores, seconds = self.predict([config])
        random = np.random.default_rng(seed)
        offset = random.normal(0, self._noise * math.sqrt(1 - EPOCH_NOISE_SHARE))
        jitter = random.normal(0, self._noise * math.sqrt(EPOCH_NOISE_SHARE), scores.shape[1])
        observed = np.where(scores[0] > 0, np.clip(scores[0] + offset + jitter, 0, 1), 0.0)
        return Curve(tuple(float(s) for s in observed), float(scores[0].max()), float(seconds[0]))
