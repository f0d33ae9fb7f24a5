"""Records of trials: read-only views of the trials that a ledger stores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from clinie_core.config import Selection, TrialConfig, rate_epoch
from clinie_core.errors import fail
from search.trials.usage import Usage

__all__ = [
    "CLONE",
    "DRIVER",
    "ENDED",
    "FOLD",
    "INFEASIBLE",
    "OPTUNA_STATES",
    "PAUSED",
    "REPEATS",
    "RESOURCE_CLASS",
    "SAME_AS",
    "SEED",
    "STOPPED",
    "UNFINISHED",
    "State",
    "TrialRecord",
    "count_epochs",
    "find_best_values",
    "make_record",
    "mark_interrupted",
]

State = Literal["running", "paused", "interrupted", "complete", "pruned", "infeasible", "failed"]
ENDED: tuple[State, ...] = ("complete", "pruned", "infeasible", "failed")
"""States of a trial that has ended. An ``infeasible`` trial did not fit into memory."""
STOPPED = "stopped by a command"
"""Reason of a trial that a command has stopped."""
UNFINISHED: tuple[State, ...] = ("running", "paused", "interrupted")
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
OPTUNA_STATES: Mapping[State, TrialState] = {
    **{state: optuna_state for optuna_state, state in STATES.items()},
    "infeasible": TrialState.PRUNED,
}
"""The state in which Optuna stores a trial that has ended."""
INFEASIBLE = "infeasible"
"""Attribute of a trial that did not fit into memory."""
REPEATS, SEED, SAME_AS = "repeats", "seed", "same_as"
"""Attributes of a trial: the trial that it repeats with another seed, this seed, and the trial that answers it."""
FOLD = "fold"
"""Attribute of a trial that repeats another one on another fold: the fold."""
PAUSED = "paused"
"""Attribute of a trial that a command has paused."""
CLONE = "clone_command"
"""Attribute of a trial that a command has requested: the id of the command."""
DRIVER = "driver"
"""Attribute of a trial: the name of the driver that trains it, or has trained it last."""
RESOURCE_CLASS = "resource_class"
"""Attribute of a trial: the name of the resource class that has trained it last; absent in a study without classes."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study.

    Args:
        number: 0-based number of the trial in its study.
        state: State of the trial.
        config: Its configuration; None if the draw was not completed.
        parameters: Values of the searched dimensions, by path.
        epochs: Metrics of each epoch, by 1-based epoch.
        reason: Why the trial failed or was interrupted.
        run_id: Id of its MLflow run.
        checkpoint: URI of its best checkpoint.
        repeats: Number of the trial whose configuration it has with another seed or on another fold; None if it is no
            such run.
        same_as: Number of the earlier trial with an identical configuration, whose results it has; None if it was
            trained.
        driver: Name of the driver that trains it, or has trained it last.
        resource_class: Name of the resource class that has trained it last; None in a study without classes.
        started: When the trial was created.
        ended: When the trial ended.
    """

    number: int
    state: State
    config: TrialConfig | None
    parameters: dict[str, Any]
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    reason: str | None = None
    run_id: str | None = None
    checkpoint: str | None = None
    repeats: int | None = None
    same_as: int | None = None
    driver: str | None = None
    resource_class: str | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def best_epoch(self) -> int | None:
        """1-based number of the first epoch with the best selection metric, whose checkpoint is stored."""
        if self.config is None or not self.epochs:
            return None
        return _find_best_epoch(self.epochs, self.config.selection)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best epoch; empty before the first epoch has ended."""
        return dict(self.epochs[self.best_epoch]) if self.best_epoch is not None else {}

    @property
    def usage(self) -> Usage:
        """GPU-hours and money of all epochs."""
        return Usage.of(self.epochs.values())

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "number": self.number,
            "state": self.state,
            "parameters": self.parameters,
            "metrics": self.metrics,
            "best_epoch": self.best_epoch,
            "epochs": len(self.epochs),
            "reason": self.reason,
            **self.usage.as_metrics(),
            "run_id": self.run_id,
            "checkpoint": self.checkpoint,
            "repeats": self.repeats,
            "same_as": self.same_as,
            "driver": self.driver,
            "resource_class": self.resource_class,
            "started": self.started.isoformat() if self.started else None,
            "ended": self.ended.isoformat() if self.ended else None,
        }


def make_record(
    trial: FrozenTrial, late_attributes: Mapping[str, str] | None = None, config: TrialConfig | None = None
) -> TrialRecord:
    """Make the record of a trial from Optuna's view of it.

    Args:
        trial: The trial as stored.
        late_attributes: Attributes that were set after the trial had ended.
        config: The trial's configuration, if it has been parsed before.

    Raises:
        InputError: If another version of clinie stored the trial's configuration with other keys.
    """
    attributes: dict[str, Any] = {**trial.user_attrs, **(late_attributes or {})}
    interrupted = attributes.get("interrupted")
    ended: State | None = "infeasible" if attributes.get(INFEASIBLE) else STATES.get(trial.state)
    return TrialRecord(
        number=trial.number,
        state=ended or ("interrupted" if interrupted else "paused" if attributes.get(PAUSED) else "running"),
        config=config or _read_config(trial),
        parameters=dict(trial.params),
        epochs=_read_epochs(attributes),
        reason=attributes.get("reason") or interrupted,
        run_id=attributes.get("run_id"),
        checkpoint=attributes.get("checkpoint") or None,
        repeats=attributes.get(REPEATS),
        same_as=attributes.get(SAME_AS),
        driver=attributes.get(DRIVER),
        resource_class=attributes.get(RESOURCE_CLASS),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def mark_interrupted(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the records of a study without a running search: a trial that has not ended is ``interrupted``."""
    return [replace(r, state="interrupted") if r.state in UNFINISHED else r for r in records]


def sum_usage(records: Iterable[TrialRecord]) -> Usage:
    """Return the GPU-hours and the money of several trials."""
    return Usage.of(metrics for record in records for metrics in record.epochs.values())


def find_best_values(attributes: Mapping[str, Any], metrics: Sequence[str]) -> list[float] | None:
    """Return the values of some metrics in a trial's best epoch.

    Args:
        attributes: The trial's attributes in the ledger.
        metrics: Names of the metrics.

    Returns:
        None if the trial has no epoch, or a value is not a finite number.
    """
    epochs, config = _read_epochs(attributes), attributes.get("config")
    if not epochs or config is None:
        return None
    best = epochs[_find_best_epoch(epochs, config["selection"])]
    values = [best.get(name, math.nan) for name in metrics]
    return values if all(map(math.isfinite, values)) else None


def count_epochs(attributes: Mapping[str, Any]) -> int:
    """Return the number of epochs in a trial's attributes in the ledger."""
    return sum(key.startswith("epoch.") for key in attributes)


def _read_epochs(attributes: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    return {int(k.removeprefix("epoch.")): dict(v) for k, v in attributes.items() if k.startswith("epoch.")}


def _find_best_epoch(epochs: Mapping[int, Mapping[str, float]], selection: Selection) -> int:
    return max(sorted(epochs), key=lambda epoch: rate_epoch(epochs[epoch], selection))


def _read_config(trial: FrozenTrial) -> TrialConfig | None:
    if "config" not in trial.user_attrs:
        return None
    try:
        return TrialConfig.model_validate(trial.user_attrs["config"])
    except ValidationError as error:
        keys = ", ".join(str(item["loc"][0]) for item in error.errors() if item["loc"])
        fail(
            f"ledger: trial {trial.number}",
            f"a configuration of another version of clinie ({keys})",
            remedy="use the version that searched this study, or search the space as a new study",
        )
