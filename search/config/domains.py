"""Domains of dimensions: how they are written in YAML, and how a value is drawn from them.

A domain is independent of any sampler. It draws with a :class:`Chooser`, for example an Optuna trial or a random
number generator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import JsonValue

from clinie_core.errors import ErrorList

__all__ = ["Chooser", "Domain", "Fixed", "OneOf", "RandomChooser", "Range", "parse_domain"]

Scalar = str | int | float | bool | None
PRIOR = "prior"
RANGES = {"uniform": (False, False), "log": (True, False), "int": (False, True), "log_int": (True, True)}


class Chooser(Protocol):
    """Source of values for dimensions. The name of a dimension is its path in the space."""

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """Return one of the choices."""

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number in [low, high]."""

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """Return an integer in [low, high]."""


@dataclass(frozen=True)
class Fixed:
    """A value that is not searched."""

    value: JsonValue

    def draw(self, name: str, chooser: Chooser) -> JsonValue:
        """Return the value."""
        return self.value

    @property
    def size(self) -> float:
        """Number of values."""
        return 1

    @property
    def corners(self) -> list[JsonValue]:
        """Values to check instead of all values."""
        return [self.value]

    def contains(self, value: JsonValue) -> bool:
        """Return whether a value can be drawn."""
        return _is_equal(value, self.value)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class OneOf:
    """A choice from a list of scalars.

    Args:
        choices: The scalars.
        prior: The choice that is probably good; None if nothing is known.
    """

    choices: tuple[Scalar, ...]
    prior: Scalar = None

    def draw(self, name: str, chooser: Chooser) -> JsonValue:
        """Draw one of the choices."""
        return chooser.draw_choice(name, self.choices)

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.choices)

    @property
    def corners(self) -> list[JsonValue]:
        """All choices."""
        return list(self.choices)

    def contains(self, value: JsonValue) -> bool:
        """Return whether a value can be drawn."""
        return any(_is_equal(value, choice) for choice in self.choices)

    def __str__(self) -> str:
        return "choose " + ", ".join(map(str, self.choices))


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Args:
        low: Smallest value.
        high: Largest value.
        log: Draw uniformly on a logarithmic scale.
        integer: Draw integers.
        prior: A value that is probably good; None if nothing is known.
    """

    low: float
    high: float
    log: bool
    integer: bool
    prior: float | None = None

    def to_unit(self, value: float) -> float:
        """Return the position of a value in the range, in [0, 1]; on a logarithmic scale if draws are."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def from_unit(self, position: float) -> int | float:
        """Return the value at a position in [0, 1]; positions outside are clipped."""
        position = min(1.0, max(0.0, position))
        if self.log:
            value = math.exp(math.log(self.low) + position * math.log(self.high / self.low))
        else:
            value = self.low + position * (self.high - self.low)
        value = min(self.high, max(self.low, value))
        return round(value) if self.integer else value

    def draw(self, name: str, chooser: Chooser) -> JsonValue:
        """Draw a number in the range."""
        if self.integer:
            return chooser.draw_int(name, int(self.low), int(self.high), log=self.log)
        return chooser.draw_float(name, self.low, self.high, log=self.log)

    @property
    def size(self) -> float:
        """Number of values; infinite for real numbers."""
        return self.high - self.low + 1 if self.integer else math.inf

    @property
    def corners(self) -> list[JsonValue]:
        """Both ends of the range."""
        return [int(self.low), int(self.high)] if self.integer else [self.low, self.high]

    def contains(self, value: JsonValue) -> bool:
        """Return whether a value can be drawn."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (not self.integer or value == int(value))

    def __str__(self) -> str:
        kind = next(k for k, v in RANGES.items() if v == (self.log, self.integer))
        return f"{kind} {self.low:g} to {self.high:g}"


Domain = Fixed | OneOf | Range


class RandomChooser:
    """Uniform random draws without a sampler.

    Args:
        seed: Seed of the random number generator.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`Chooser.draw_choice`."""
        return self._random.choice(list(choices))

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`Chooser.draw_float`."""
        if log:
            return min(high, max(low, math.exp(self._random.uniform(math.log(low), math.log(high)))))
        return self._random.uniform(low, high)

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`Chooser.draw_int`."""
        if log:
            return min(high, max(low, round(math.exp(self._random.uniform(math.log(low), math.log(high))))))
        return self._random.randint(low, high)


def parse_domain(value: JsonValue, where: str, errors: ErrorList) -> Domain:
    """Parse the domain of a dimension.

    Args:
        value: A scalar, ``{choose: [...]}``, or ``{uniform|log|int|log_int: [low, high]}``; the last two may have a
            second key ``prior`` with a value that is probably good.
        where: File and key path, for messages.
        errors: Receives the faults.

    Returns:
        The domain; a placeholder if there is a fault.
    """
    if not isinstance(value, dict):
        if isinstance(value, list):
            errors.add(
                where,
                "found a list",
                allowed="a value or {choose: [...]}",
                remedy="write {choose: [...]} to search over it",
            )
        return Fixed(value)
    allowed = "{choose: [...]} or " + " | ".join(f"{{{kind}: [low, high]}}" for kind in RANGES)
    kinds = [key for key in value if key != PRIOR]
    kind = kinds[0] if kinds else ""
    content = value.get(kind)
    if len(kinds) != 1 or kind not in ("choose", *RANGES):
        errors.add(where, f"found keys {', '.join(map(str, value)) or 'none'}", allowed=f"{allowed}, and {PRIOR}")
    elif kind == "choose":
        return _add_prior(_parse_choices(content, where, errors), value, where, errors)
    elif not isinstance(content, list) or len(content) != 2 or not all(_is_number(v) for v in content):
        errors.add(
            where,
            f"{kind} needs two numbers",
            allowed=f"{{{kind}: [low, high]}}",
            remedy="write 1.0e-5 instead of 1e-5, which YAML parses as text",
        )
    else:
        low, high = (float(v) for v in content)  # type: ignore[arg-type]  # checked by _is_number
        log, integer = RANGES[kind]
        if low >= high:
            errors.add(where, f"empty range {low:g} to {high:g}", allowed="low < high")
        elif log and low <= 0:
            errors.add(where, f"{kind} from {low:g}", allowed="low > 0 on a logarithmic scale")
        elif integer and (low != int(low) or high != int(high)):
            errors.add(where, f"{kind} from {low:g} to {high:g}", allowed="integers")
        else:
            return _add_prior(Range(low, high, log, integer), value, where, errors)
    return Fixed(None)


def _add_prior(domain: Domain, content: dict[str, JsonValue], where: str, errors: ErrorList) -> Domain:
    """Return a domain with the prior of its YAML entry, if it has one."""
    prior = content.get(PRIOR)
    if prior is None or isinstance(domain, Fixed):
        return domain
    if isinstance(domain, OneOf):
        if prior in domain.choices and not isinstance(prior, (dict, list)):
            return replace(domain, prior=prior)
        errors.add(f"{where}.{PRIOR}", f"found {prior!r}", allowed="one of the choices")
    elif isinstance(prior, (int, float)) and _is_number(prior) and domain.low <= prior <= domain.high:
        return replace(domain, prior=float(prior))
    else:
        errors.add(f"{where}.{PRIOR}", f"found {prior!r}", allowed=f"a number from {domain.low:g} to {domain.high:g}")
    return domain


def _parse_choices(content: JsonValue, where: str, errors: ErrorList) -> Domain:
    if not isinstance(content, list) or not content:
        errors.add(where, "empty choice", allowed="{choose: [at least one value]}")
        return Fixed(None)
    choices: list[Scalar] = []
    for choice in content:
        if isinstance(choice, (dict, list)):
            errors.add(where, "a choice is a list or a mapping", allowed="scalars")
        elif choice in choices:
            errors.add(where, f"choice {choice!r} is listed twice", allowed="each value once")
        else:
            choices.append(choice)
    return OneOf(tuple(choices)) if choices else Fixed(None)


def _is_equal(first: JsonValue, second: JsonValue) -> bool:
    """Return whether two values are equal; a truth value is not equal to a number."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
