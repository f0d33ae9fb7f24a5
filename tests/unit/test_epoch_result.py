"""Conversion of epoch results, failures and trial specifications to Ray Tune's dictionaries and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.config import TrialConfig
from search.trials.result import EPOCH, EpochResult, TrialFailure
from search.trials.spec import TrialSpec

NAMES = st.sampled_from(["strict_f1", "train_loss", "seconds", "system.cpu_utilization_percentage"])
METRICS = st.dictionaries(NAMES, st.floats(allow_nan=False))
TUNE_ENTRIES = {"training_iteration": 7, "time_total_s": 1.5, "done": False, "trial_id": "a1b2", "config": {}}


@given(st.integers(1, 1000), METRICS, st.booleans())
def test_a_result_survives_the_way_through_tune(epoch: int, metrics: dict[str, float], finished: bool) -> None:
    result = EpochResult(epoch, metrics, finished, "large")
    found = EpochResult.from_tune_result(TUNE_ENTRIES | result.to_tune_result())
    assert found == result
    assert list(found.metrics) == list(metrics)


def test_a_tune_result_has_the_metrics_and_the_epoch_at_its_top_level() -> None:
    content = EpochResult(3, {"strict_f1": 0.5}).to_tune_result()
    assert content["strict_f1"] == 0.5
    assert content[EPOCH] == 3


def test_nan_is_preserved() -> None:
    found = EpochResult.from_tune_result(EpochResult(1, {"strict_f1": math.nan}).to_tune_result())
    assert found is not None
    assert math.isnan(found.metrics["strict_f1"])


def test_a_tune_result_without_an_epoch_is_no_epoch_result() -> None:
    assert EpochResult.from_tune_result(TUNE_ENTRIES) is None


def test_a_failure_is_read_beside_the_last_epoch() -> None:
    epoch, failure = EpochResult(2, {"strict_f1": 0.5}), TrialFailure("infeasible", "out of memory")
    content = TUNE_ENTRIES | epoch.to_tune_result() | failure.to_tune_result()
    assert TrialFailure.from_tune_result(content) == failure
    assert EpochResult.from_tune_result(content) == epoch
    assert TrialFailure.from_tune_result(epoch.to_tune_result()) is None


def test_an_unknown_kind_of_failure_is_an_error() -> None:
    content: dict[str, Any] = {"failure": "bored", "reason": "no reason"}
    with pytest.raises(ValueError, match="unknown kind of failure 'bored'; allowed: failed, infeasible, disk_full"):
        TrialFailure.from_tune_result(content)


def test_a_trial_spec_survives_the_way_through_tune(make_config: Callable[..., TrialConfig]) -> None:
    config = make_config()
    spec = TrialSpec.from_config(4, config)
    assert spec.backbone == config.backbone.name
    assert TrialSpec.from_tune_config(spec.to_tune_config() | {"queue": "clinie-queue"}) == spec
    assert TrialConfig.model_validate_json(spec.config) == config
