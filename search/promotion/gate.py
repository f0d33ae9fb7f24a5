"""The promotion gate: decide from measurements on the test split whether a model becomes champion.

A challenger must beat the champion on the same documents. Because several promotions read the same test split,
the k-th one is tested at the level alpha / (k (k + 1)). These levels sum to alpha, the policy's level for all
promotions together (alpha spending, see Foster and Stine 2008, JRSS B 70).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from clinie_core.scoring.significance import bootstrap_interval, superiority_p_value
from search.promotion.policy import Policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Check", "Decision", "Evidence", "SeedScores", "TypeScore", "decide"]


@dataclass(frozen=True)
class TypeScore:
    """Strict scores of one type on the test split.

    Args:
        f1: F1.
        support: Number of gold annotations.
        precision: Precision; None in decisions of earlier versions.
        recall: Recall; None in decisions of earlier versions.
    """

    f1: float
    support: int
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Evidence:
    """Scores and costs of a model on the test split.

    Args:
        counts: True positives, false positives and false negatives of each document, ``[documents, 3]``.
        metrics: Metrics of the whole split, by name.
        types: Scores by type.
        costs: ``seconds_per_document``, ``peak_memory_mb`` and ``size_mb`` (both in MiB).
    """

    counts: NDArray[np.float64]
    metrics: Mapping[str, float]
    types: Mapping[str, TypeScore]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """One rule of the policy, whether the model passes it, and the numbers that were compared."""

    rule: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Decision:
    """Decision whether a model becomes champion, with its reasons.

    Args:
        promote: Whether the model passes all rules.
        checks: Results of the rules.
        read: 1-based index of this promotion among the promotions that read this test split.
        level: Significance level at which the model has to beat the champion.
        test: Metrics of the model on the test split.
        interval: 95 % interval of its strict F1.
        types: Scores by type.
        costs: Costs of prediction, as in :class:`Evidence`.
    """

    promote: bool
    checks: list[Check]
    read: int
    level: float
    test: dict[str, float]
    interval: tuple[float, float]
    types: dict[str, TypeScore] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the decision as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        """Restore a decision from the JSON values of :meth:`as_json`."""
        values = dict(content)
        values["checks"] = [Check(**check) for check in values["checks"]]
        values["types"] = {name: TypeScore(**score) for name, score in values["types"].items()}
        values["interval"] = tuple(values["interval"])
        return cls(**values)

    @property
    def refusals(self) -> list[str]:
        """Rules that the model fails, with the numbers that were compared."""
        return [f"{check.rule}: {check.detail}" for check in self.checks if not check.passed]


@dataclass(frozen=True)
class SeedScores:
    """Dev scores of a configuration that was trained with several seeds, or on several folds.

    Args:
        metric: Name of the metric.
        scores: Score of each seed or fold.
        unit: ``seeds`` or ``folds``.
    """

    metric: str
    scores: tuple[float, ...]
    unit: str = "seeds"

    def __str__(self) -> str:
        if len(self.scores) < 2:
            return f"dev {self.metric} {self.scores[0]:.4f} with one seed"
        mean, spread = statistics.fmean(self.scores), statistics.stdev(self.scores)
        return f"mean dev {self.metric} {mean:.4f} over {len(self.scores)} {self.unit}, standard deviation {spread:.4f}"


def decide(
    policy: Policy, challenger: Evidence, champion: Evidence | None, *, read: int, seeds: SeedScores | None = None
) -> Decision:
    """Apply a promotion policy to a challenger.

    Args:
        policy: The promotion policy.
        challenger: Measurements of the challenger.
        champion: Measurements of the champion on the same documents; None if there is no champion.
        read: 1-based index of this promotion among the promotions that read this test split.
        seeds: Dev scores of the challenger's configuration; None if they are unknown.
    """
    level = policy.level(read)
    checks = [*_check_seeds(policy, seeds), *_check_type_floors(policy, challenger), *_check_limits(policy, challenger)]
    if champion is None:
        for metric, floor in policy.first_champion.items():
            value = challenger.metrics.get(metric, 0.0)
            checks.append(Check(f"first_champion.{metric}", value >= floor, f"{value:.4f}, at least {floor:g}"))
    else:
        checks = [
            _check_superiority(challenger, champion, level, read),
            *_check_type_drops(policy, challenger, champion),
            *checks,
        ]
    return Decision(
        promote=all(check.passed for check in checks),
        checks=checks,
        read=read,
        level=level,
        test=dict(challenger.metrics),
        interval=bootstrap_interval(challenger.counts),
        types=dict(challenger.types),
        costs=dict(challenger.costs),
    )


def _check_seeds(policy: Policy, seeds: SeedScores | None) -> list[Check]:
    """Check the number of seeds or folds, if the policy requires several or the configuration has several."""
    count = len(seeds.scores) if seeds is not None else 1
    if max(count, policy.least_seeds) < 2:
        return []
    found = str(seeds) if seeds is not None else "one seed"
    return [Check("least_seeds", count >= policy.least_seeds, f"{found}; at least {policy.least_seeds}")]


def _check_superiority(challenger: Evidence, champion: Evidence, level: float, read: int) -> Check:
    found = superiority_p_value(challenger.counts, champion.counts)
    detail = (
        f"strict F1 {challenger.metrics['strict_f1']:.4f} against {champion.metrics['strict_f1']:.4f}, p ="
        f" {found:.5f} by paired bootstrap, at most {level:.5f} for read {read} of this test split"
    )
    return Check("alpha", found <= level, detail)


def _check_type_drops(policy: Policy, challenger: Evidence, champion: Evidence) -> list[Check]:
    checks = []
    for type_, before in sorted(champion.types.items()):
        if before.support >= policy.least_support:
            now = challenger.types.get(type_, TypeScore(0.0, before.support))
            lost = before.f1 - now.f1
            detail = f"{type_} {now.f1:.4f}, champion {before.f1:.4f}; the allowed loss is {policy.type_drop:g}"
            checks.append(Check(f"type_drop.{type_}", lost <= policy.type_drop, detail))
    return checks


def _check_type_floors(policy: Policy, challenger: Evidence) -> list[Check]:
    checks = []
    for type_, floor in sorted(policy.type_floors.items()):
        value = challenger.types[type_].f1 if type_ in challenger.types else 0.0
        checks.append(Check(f"type_floors.{type_}", value >= floor, f"{value:.4f}, at least {floor:g}"))
    return checks


def _check_limits(policy: Policy, challenger: Evidence) -> list[Check]:
    checks = []
    for name, limit in policy.limits.model_dump().items():
        if limit is not None:
            value = challenger.costs[name]
            checks.append(Check(f"limits.{name}", value <= limit, f"{value:.4g}, at most {limit:g}"))
    return checks
