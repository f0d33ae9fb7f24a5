"""Keys of the results that cross Ray Tune: an epoch's metrics and how a trial ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["EPOCH", "FAILURE", "METRIC_NAMES", "NO_SPACE", "epoch_metrics"]

EPOCH = "epoch"
"""The time attribute: Tune's own `training_iteration` restarts with a trial's driver, an epoch does not."""
METRIC_NAMES = "metric_names"
"""Key of a result that lists the trial's own metrics, beside Tune's."""
FAILURE = "failure"
"""Key of the last result of a trial that failed, beside its ``reason``: ``failed``, ``infeasible`` or NO_SPACE."""
NO_SPACE = "no space"
"""A disk is full, so the search ends: its trials stay unchanged in the ledger and can be resumed."""


def epoch_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the trial's own metrics in a Tune result, without Tune's bookkeeping."""
    return {name: float(result[name]) for name in str(result[METRIC_NAMES]).split(",")}
