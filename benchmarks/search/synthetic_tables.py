"""Synthetic corpora: random functions from configurations to training curves, shaped like the recorded tables.

Each corpus has its own best learning rates, its own order of methods, backbones and heads, and its own noise. The
constants describe the recorded tables roughly; the best rates scatter by more than half a decade around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from simulated_search import Curve

from clinie_core.config import TrialConfig

EPOCHS = 6
BEST_RATES = {
    "full": 4e-4,
    "lora": 3e-3,
    "rslora": 1.5e-3,
    "dora": 3e-3,
    "pissa": 8e-4,
    "adalora": 5e-3,
    "ia3": 1.5e-2,
    "vera": 2e-2,
    "loha": 4e-3,
    "bottleneck": 3e-3,
    "bitfit": 4e-3,
    "head_only": 1e-2,
}
"""Center of each method's best learning rates."""
RATE_SCATTER = 0.35
"""Standard deviation of a corpus's best rate, in decades."""
METHOD_GAPS = {"full": 0.0, "lora": 0.02, "rslora": 0.02, "dora": 0.02, "pissa": 0.04, "bottleneck": 0.04}
OTHER_METHOD_GAP = 0.15
SCRATCH_GAP = 1.5
SECONDS = {"minilm-l6": 6.0, "minilm-l3": 3.2, "small-from-scratch": 1.5}
FORMULATION_COST = {"token_classification": 1.0, "span_pointer": 1.2, "span_question": 2.2}


class SyntheticCorpus:
    """A random function from configurations to curves.

    Args:
        seed: Seed of the corpus.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(np.random.SeedSequence([seed, 20]))
        draw = self._random
        self.top = float(draw.uniform(0.55, 0.9))
        self.noise = float(draw.uniform(0.005, 0.02))
        self._rates = {method: rate * 10 ** draw.normal(0, RATE_SCATTER) for method, rate in BEST_RATES.items()}
        self._gaps = {m: max(0.0, METHOD_GAPS.get(m, OTHER_METHOD_GAP) + draw.normal(0, 0.04)) for m in BEST_RATES}
        self._backbone_gaps = {
            "minilm-l6": 0.0,
            "minilm-l3": float(draw.uniform(0.02, 0.35)),
            "small-from-scratch": SCRATCH_GAP,
        }
        self._formulation_gaps: Mapping[str, float] = {name: abs(draw.normal(0, 0.06)) for name in FORMULATION_COST}
        self._head_gap = float(draw.normal(0, 0.03))
        self._best_batch = float(draw.choice([4, 8, 16]))
        self._width = float(draw.uniform(0.45, 0.8))

    def make_curve(self, config: TrialConfig, seed: int) -> Curve:
        """Simulate a training; the arguments are those of ``MakeCurve``."""
        means = self._mean_scores(config)
        random = np.random.default_rng([seed, 77])
        observed = means + random.normal(0, self.noise / math.sqrt(2)) + random.normal(0, self.noise / 2, EPOCHS)
        observed = np.where(means > 0, np.clip(observed, 0, 1), 0.0)
        seconds = SECONDS[config.backbone.name] * FORMULATION_COST[config.formulation.name]
        return Curve(tuple(float(s) for s in observed), float(means.max()), seconds)

    def _mean_scores(self, config: TrialConfig) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        method, values = config.finetuning.name, config.finetuning.parameters
        batch_effect = math.sqrt(config.batch_size / self._best_batch)
        rate = float(str(values["learning_rate"])) / (self._rates[method] * batch_effect)
        decades = math.log10(rate)
        if decades > 2 * self._width:  # the training diverges
            return np.zeros(EPOCHS)
        penalty = 0.5 * (decades / self._width) ** 2 * (1.6 if decades > 0 else 1.0)
        penalty += self._gaps[method] + self._backbone_gaps[config.backbone.name]
        penalty += self._formulation_gaps[config.formulation.name]
        penalty += max(0.0, self._head_gap) if config.formulation.parameters.get("head") == "crf" else 0.0
        penalty += 0.02 * abs(math.log2(config.batch_size / self._best_batch))
        if config.backbone.name == "small-from-scratch" and method != "full":
            return np.zeros(EPOCHS)
        speed = 0.9 * math.sqrt(min(rate, 2.0))
        epochs = np.arange(1, EPOCHS + 1)
        shape = (1 - np.exp(-speed * epochs)) / (1 - math.exp(-speed * EPOCHS))
        return np.asarray(self.top * math.exp(-penalty) * shape)
