"""GPU-hours and money of trials: the time in a group at the rate of its class."""

from __future__ import annotations

import pytest

from search.pool.usage import HourlyRate, UsageMeter
from search.trials.usage import COST, GPU_HOURS, Usage


def test_the_use_of_an_epoch_includes_attempts_that_failed_in_other_classes() -> None:
    meter = UsageMeter({"quarter": HourlyRate(0.25, 1.0), "node": HourlyRate(8.0, 32.0)})
    meter.start(0, "quarter", trial=7, now=0)
    meter.stop(0, now=3600)
    meter.start(1, "node", trial=7, now=5000)
    assert meter.take(1, now=5000 + 1800) == {GPU_HOURS: pytest.approx(4.25), COST: pytest.approx(17.0)}
    assert meter.take(1, now=5000 + 3600) == {GPU_HOURS: pytest.approx(4.0), COST: pytest.approx(16.0)}
    meter.stop(1, now=9000)
    assert meter.take(1, now=9999) == {}


def test_a_class_without_gpus_and_price_has_no_metrics() -> None:
    meter = UsageMeter({"cpu": HourlyRate()})
    meter.start(0, "cpu", trial=0, now=0)
    assert meter.take(0, now=10) == {}


def test_the_use_of_trials_is_described_with_its_currency() -> None:
    used = Usage.of([{GPU_HOURS: 1.0, COST: 4.0}, {GPU_HOURS: 0.25}, {"strict_f1": 0.5}])
    assert used.describe("EUR") == "1.25 GPU-hours, 4.00 EUR"
    assert Usage.of([{"strict_f1": 0.5}]).describe(None) == ""
