"""The budget of a study in time and money over all runs of its search, and the rule that ends it early."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from search.config.objectives import describe_violations
from search.config.space_file import Budget
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED, TrialRecord
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult
from search.trials.usage import COST

__all__ = ["StudyBudget", "estimate_gain", "read_spent_hours"]

SPENT = "spent_seconds"
"""Attribute of a study: run time of its search in all runs, in seconds."""
GPUS = "gpus_per_trial"
"""Attribute of a study: number of GPUs of one trial in its latest run."""
SAVE_SECONDS = 10.0
"""Time between two writes of the run time, which a killed driver loses at most."""
FEWEST_IN_WINDOW = 5


def read_spent_hours(ledger: Ledger) -> float:
    """Return the run time of a search in all its runs, in hours."""
    return float(ledger.attributes.get(SPENT, 0.0)) / 3600


def estimate_gain(scores: Sequence[float | None]) -> float:
    """Return the expected improvement of the best score by one further trial.

    This is the larger of two estimates: the mean improvement per trial over the latest third of the trials, and the
    jackknife estimate for independent draws, which is the difference between the two best scores divided by the number
    of trials. The larger one ends a search later.

    Args:
        scores: Score of each trial in order of its end, higher is better; None for a trial that cannot be the best.

    Returns:
        Infinity if too few trials have a score.
    """
    window = max(FEWEST_IN_WINDOW, len(scores) // 3)
    before = [score for score in scores[:-window] if score is not None]
    known = sorted((score for score in scores if score is not None), reverse=True)
    if not before or len(known) < 2:
        return math.inf
    return max((known[0] - max(before)) / window, (known[0] - known[1]) / len(scores))


class StudyBudget(TrialListener):
    """Time and money that a search has used, in this run and in earlier ones.

    The clock of one run is monotonic, so that a change of the system's time has no effect.

    Args:
        ledger: The study.
        budget: Its budget.
        gpus_per_trial: Number of GPUs of one trial, in the largest resource class; None for that of the earlier run.
    """

    def __init__(self, ledger: Ledger, budget: Budget, gpus_per_trial: float | None = None) -> None:
        self._ledger = ledger
        self._budget = budget
        if gpus_per_trial is not None:
            ledger.set_attribute(GPUS, gpus_per_trial)
        self._gpus = float(ledger.attributes.get(GPUS, 0.0))
        self._earlier = read_spent_hours(ledger) * 3600
        self._used = 0.0
        self._last = self._saved = time.monotonic()
        self._seconds: defaultdict[int, float] = defaultdict(float)  # training time by trial
        self._costs: defaultdict[int, float] = defaultdict(float)  # money by trial
        self._ends: list[tuple[float | None, float]] = []  # score and training time of each trial
        records = ledger.records()
        for record in records:
            for metrics in record.epochs.values():
                self._add_use(record.number, metrics)
        ended = [record for record in records if record.state in ENDED and record.ended is not None]
        for record in sorted(ended, key=lambda record: (record.ended, record.number)):
            self._add_end(record, record.state == "complete")

    @property
    def hours(self) -> float:
        """Run time of the search in all its runs, in hours."""
        return (self._earlier + self._used) / 3600

    @property
    def hours_left(self) -> float | None:
        """Run time that is left, in hours; None for no limit."""
        return None if self._budget.hours is None else max(0.0, self._budget.hours - self.hours)

    @property
    def is_use_spent(self) -> bool:
        """True if the limit on GPU-hours or on the cost is reached."""
        return any(used >= limit for _, used, limit in self._list_limits_on_use())

    @property
    def gpu_hours(self) -> float:
        """Training time of all trials multiplied by their number of GPUs, in hours."""
        return self._gpus * sum(self._seconds.values()) / 3600

    @property
    def cost(self) -> float:
        """Cost of all trials, by the prices of their resource classes."""
        return sum(self._costs.values())

    def _list_limits_on_use(self) -> list[tuple[str, float, float]]:
        """Return what the limits on the use of trials are called, with the use and the limit."""
        limits = [("gpu_hours", self.gpu_hours, self._budget.gpu_hours)]
        if self._budget.cost is not None:
            limits.append(("cost", self.cost, self._budget.cost.amount))
        return [(name, used, limit) for name, used, limit in limits if limit is not None]

    def add_time(self, *, is_paused: bool = False) -> None:
        """Add the time since the last call to the run time, and store it in the ledger at regular intervals.

        Args:
            is_paused: Whether the whole search was paused, so that this time does not count.
        """
        now = time.monotonic()
        self._used += 0.0 if is_paused else now - self._last
        self._last = now
        if now - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Store the run time in the ledger."""
        self._saved = time.monotonic()
        # Drivers that search at the same time share the run time: each has read that of the others when it began.
        self._earlier = max(self._earlier, read_spent_hours(self._ledger) * 3600 - self._used)
        self._ledger.set_attribute(SPENT, self.hours * 3600)

    def find_spent_limit(self) -> str | None:
        """Return which limit on time or money is spent; None if the search may continue."""
        hours = [] if self._budget.hours is None else [("hours", self.hours, self._budget.hours)]
        for name, used, limit in [*hours, *self._list_limits_on_use()]:
            if used >= limit:
                shown = str(self._budget.cost) if name == "cost" else f"{limit:g}"
                return f"budget.{name} of {shown} is spent, over all runs of this study"
        return None

    def find_end(self) -> str | None:
        """Return why a further trial is not worth its cost; None if it is, or no rule is set."""
        rule = self._budget.stop_when
        if rule is None or len(self._ends) < rule.trials:
            return None
        gain = estimate_gain([score for score, _ in self._ends])
        recent = [seconds for _, seconds in self._ends[-max(FEWEST_IN_WINDOW, len(self._ends) // 3) :]]
        hours = sum(recent) / len(recent) / 3600
        if hours <= 0 or gain / hours >= rule.gain_per_hour:
            return None
        return (
            f"a further trial is expected to improve {self._ledger.metrics[0]} by {gain:.2g} in {hours:.2g} hours:"
            f" {gain / hours:.2g} per hour, less than budget.stop_when.gain_per_hour of {rule.gain_per_hour:g}"
        )

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Add the training time and the cost of an epoch."""
        self._add_use(number, result.metrics)

    def _add_use(self, number: int, metrics: Mapping[str, float]) -> None:
        self._seconds[number] += metrics.get("seconds", 0.0)
        self._costs[number] += metrics.get(COST, 0.0)

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Add the score of a trial that is trained; one with the results of an earlier trial costs nothing."""
        self._add_end(self._ledger.record(number), state == "complete")

    def on_trial_end_elsewhere(self, number: int) -> None:
        """Add the score, the training time and the cost of a trial."""
        record = self._ledger.record(number)
        self._seconds[number] = sum(metrics.get("seconds", 0.0) for metrics in record.epochs.values())
        self._costs[number] = sum(metrics.get(COST, 0.0) for metrics in record.epochs.values())
        self._add_end(record, record.state == "complete")

    def _add_end(self, record: TrialRecord, is_complete: bool) -> None:
        if record.same_as is not None:
            self._seconds.pop(record.number, None)
            self._costs.pop(record.number, None)
        elif record.repeats is None:
            sign = 1 if self._ledger.maximized else -1
            score = record.metrics.get(self._ledger.metrics[0], math.nan)
            is_allowed = is_complete and not describe_violations(self._ledger.limits, record.metrics)
            valid = sign * score if is_allowed and math.isfinite(score) else None
            self._ends.append((valid, self._seconds[record.number]))
