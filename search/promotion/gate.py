"""The decision whether a model becomes champion: pure arithmetic on what was measured on the test split.

A challenger must beat the champion on the same documents, and each look at the same test split costs: the
level of all looks together is the policy's. The levels alpha / (k (k + 1)) add up to alpha (an alpha-spending
sequence, see Foster and Stine 2008, JRSS B 70).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from clinie_core.scoring.significance import bootstrap_interval, superiority_p_value
from search.promotion.policy import Policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Check", "Decision", "Evidence", "TypeScore", "decide"]


@dataclass(frozen=True)
class TypeScore:
    """A type's F1 on the test split, and how many of it there are."""

    f1: float
    support: int


@dataclass(frozen=True)
class Evidence:
    """What a model showed on the test split.

    Args:
        counts: By document, ``[documents, 3]``.
        metrics: Of the whole split.
        types: By type.
        costs: ``seconds_per_document``, ``peak_memory_mb``, ``size_mb``.
    """

    counts: NDArray[np.float64]
    metrics: Mapping[str, float]
    types: Mapping[str, TypeScore]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """One rule of the policy and how the model stood against it, in numbers."""

    rule: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Decision:
    """Whether a model becomes champion, and why.

    Args:
        promote: Every rule was kept.
        checks: The rules.
        read: The how-manieth promotion on this test split it is.
        level: The level at which the champion had to be beaten.
        test: The model's metrics on the test split.
        interval: 95 % interval of its strict F1.
        types: Its scores by type.
        costs: What it costs.
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
        """The decision as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        """A decision that was recorded."""
        values = dict(content)
        values["checks"] = [Check(**check) for check in values["checks"]]
        values["types"] = {name: TypeScore(**score) for name, score in values["types"].items()}
        values["interval"] = tuple(values["interval"])
        return cls(**values)

    @property
    def refusals(self) -> list[str]:
        """The rules that were not kept, with their numbers."""
        return [f"{check.rule}: {check.detail}" for check in self.checks if not check.passed]


def decide(policy: Policy, challenger: Evidence, champion: Evidence | None, *, read: int) -> Decision:
    """Hold a challenger to a policy.

    Args:
        policy: The rules.
        challenger: What it showed.
        champion: What the champion showed on the same documents; None where there is none.
        read: The how-manieth promotion on this test split it is, from 1.
    """
    level = policy.level(read)
    checks = [*_floors(policy, challenger), *_limits(policy, challenger)]
    if champion is None:
        for metric, floor in policy.first_champion.items():
            value = challenger.metrics.get(metric, 0.0)
            checks.append(Check(f"first_champion.{metric}", value >= floor, f"{value:.4f}, at least {floor:g}"))
    else:
        checks = [_better(challenger, champion, level, read), *_drops(policy, challenger, champion), *checks]
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


def _better(challenger: Evidence, champion: Evidence, level: float, read: int) -> Check:
    found = superiority_p_value(challenger.counts, champion.counts)
    detail = (
        f"strict F1 {challenger.metrics['strict_f1']:.4f} against {champion.metrics['strict_f1']:.4f}, p ="
        f" {found:.5f} by paired bootstrap, at most {level:.5f} for read {read} of this test split"
    )
    return Check("alpha", found <= level, detail)


def _drops(policy: Policy, challenger: Evidence, champion: Evidence) -> list[Check]:
    checks = []
    for type_, before in sorted(champion.types.items()):
        if before.support >= policy.least_support:
            now = challenger.types.get(type_, TypeScore(0.0, before.support))
            lost = before.f1 - now.f1
            detail = f"{type_} {now.f1:.4f}, the champion {before.f1:.4f}; may lose {policy.type_drop:g}"
            checks.append(Check(f"type_drop.{type_}", lost <= policy.type_drop, detail))
    return checks


def _floors(policy: Policy, challenger: Evidence) -> list[Check]:
    checks = []
    for type_, floor in sorted(policy.type_floors.items()):
        value = challenger.types[type_].f1 if type_ in challenger.types else 0.0
        checks.append(Check(f"type_floors.{type_}", value >= floor, f"{value:.4f}, at least {floor:g}"))
    return checks


def _limits(policy: Policy, challenger: Evidence) -> list[Check]:
    checks = []
    for name, limit in policy.limits.model_dump().items():
        if limit is not None:
            value = challenger.costs[name]
            checks.append(Check(f"limits.{name}", value <= limit, f"{value:.4g}, at most {limit:g}"))
    return checks
