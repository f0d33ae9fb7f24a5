"""GPU-hours and money that trials use: the time for which a group holds a trial, at the rate of its resource class.

Attempts that fail count, too: their use is part of the trial's next epoch. The time between trials does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from search.trials.usage import COST, GPU_HOURS

__all__ = ["HourlyRate", "UsageMeter"]


@dataclass(frozen=True)
class HourlyRate:
    """Use of a group of a resource class in an hour.

    Args:
        gpus: Number of its GPUs.
        price: Its price; 0 if it is unknown.
    """

    gpus: float = 0.0
    price: float = 0.0


class UsageMeter:
    """Meter of the use of each trial since its last epoch.

    Args:
        rates: Rate of each resource class; a class without one is not measured.
    """

    def __init__(self, rates: Mapping[str, HourlyRate]) -> None:
        self._rates = dict(rates)
        self._running: dict[int, tuple[str, int, float]] = {}  # class, trial and time by group
        self._used: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def start(self, group: int, class_name: str, trial: int, now: float) -> None:
        """Register that a group receives a trial.

        Args:
            group: The group.
            class_name: Its resource class.
            trial: Number of the trial.
            now: Seconds of a clock that never goes back.
        """
        if class_name in self._rates:
            self._running[group] = class_name, trial, now

    def stop(self, group: int, now: float) -> None:
        """Register that a group does not hold its trial any more."""
        self._add(group, now)
        self._running.pop(group, None)

    def take(self, group: int, now: float) -> dict[str, float]:
        """Return, as metrics, what the trial of a group has used since its last epoch; empty if nothing is measured."""
        if group not in self._running:
            return {}
        self._add(group, now)
        class_name, trial, _ = self._running[group]
        self._running[group] = class_name, trial, now
        return dict(self._used.pop(trial, {}))

    def _add(self, group: int, now: float) -> None:
        if group not in self._running:
            return
        class_name, trial, since = self._running[group]
        rate, hours = self._rates[class_name], (now - since) / 3600
        if rate.gpus:
            self._used[trial][GPU_HOURS] += hours * rate.gpus
        if rate.price:
            self._used[trial][COST] += hours * rate.price
