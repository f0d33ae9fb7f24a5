"""Reading of a ledger: the records of a study's trials, and the best of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from clinie_core.config import TrialConfig
from search.config.objectives import Limit
from search.ledger.importances import compute_importances
from search.ledger.ranking import RankedTrial, rank_trials
from search.ledger.records import REPEATS, UNFINISHED, TrialRecord, make_record

__all__ = ["LATE_PREFIX", "LedgerReader"]

LATE_PREFIX = "late."
"""Prefix of the study attributes that hold what a trial's end came too early for: ``late.NUMBER.NAME``."""
LOCATIONS = ("run_id", "checkpoint")
"""Attributes of a trial that may be set after its end."""


class LedgerReader:
    """The trials of one study, without changes to them.

    Args:
        storage: The Optuna storage of the study.
        study: The Optuna study.
    """

    def __init__(self, storage: BaseStorage, study: optuna.Study) -> None:
        self._storage = storage
        self._study = study
        self._configs: dict[int, TrialConfig] = {}  # of running trials, so that each is parsed once

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the study, by name."""
        return dict(self._study.user_attrs)

    def find_attributes(self, prefix: str) -> dict[str, Any]:
        """Return the attributes of the study whose names have a prefix, by the rest of their names."""
        attributes = self._storage.get_study_user_attrs(self._study._study_id)  # without a copy of all attributes
        return {key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)}

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the objectives, the main one first."""
        return tuple(self._study.user_attrs["objectives"])

    @functools.cached_property
    def limits(self) -> tuple[Limit, ...]:
        """Limits on metrics that the best trial has to satisfy."""
        return tuple(Limit(name, value) for name, value in self._study.user_attrs.get("limits", {}).items())

    @functools.cached_property
    def maximized(self) -> bool:
        """True if a higher value of the main objective is better."""
        return self._study.directions[0] == optuna.study.StudyDirection.MAXIMIZE

    def is_repeat(self, number: int) -> bool:
        """Return whether a trial repeats another one with another seed."""
        return REPEATS in self._storage.get_trial(self._get_trial_id(number)).user_attrs

    def count_trials(self) -> int:
        """Return the number of all trials, which is the number of the next one."""
        return self._storage.get_n_trials(self._study._study_id)

    def find_interrupted_trials(self) -> list[TrialRecord]:
        """Return the drawn trials that have not ended, in order of number."""
        return [record for record in self.records() if record.state in UNFINISHED and record.config]

    def _get_trial_id(self, number: int) -> int:
        """Return a trial's id in the storage without reading all trials."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def record(self, number: int) -> TrialRecord:
        """Return the record of one trial."""
        trial = self._storage.get_trial(self._get_trial_id(number))
        attributes = self._storage.get_study_user_attrs(self._study._study_id)  # without a copy, as there may be many
        names = {name: f"{LATE_PREFIX}{number}.{name}" for name in LOCATIONS}
        late = {name: attributes[key] for name, key in names.items() if key in attributes}
        record = make_record(trial, late, self._configs.get(number))
        if record.state == "running" and record.config is not None:
            self._configs[number] = record.config
        return record

    def find_record(self, number: int) -> TrialRecord | None:
        """Return the record of a trial; None if there is none, or its draw was not completed."""
        if not 0 <= number < self.count_trials():
            return None
        record = self.record(number)
        return record if record.config is not None else None

    def _read_late_attributes(self) -> dict[int, dict[str, str]]:
        """Return the attributes that were set after the end of a trial, by number."""
        late: dict[int, dict[str, str]] = {}
        for key, value in self.find_attributes(LATE_PREFIX).items():
            number, _, name = key.partition(".")
            late.setdefault(int(number), {})[name] = value
        return late

    def records(self) -> list[TrialRecord]:
        """Return the records of all trials that were started, in order of number."""
        return list(self._iterate_records())

    def _iterate_records(self) -> Iterator[TrialRecord]:
        late = self._read_late_attributes()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state != TrialState.WAITING:
                yield make_record(trial, late.get(trial.number))

    def compute_importances(self) -> dict[str, float]:
        """Return the importance of each dimension for the main objective; see :mod:`search.ledger.importances`."""
        complete = (record for record in self._iterate_records() if record.state == "complete")
        return compute_importances(
            self._study, {record.number: record.metrics.get(self.metrics[0]) for record in complete}
        )

    def best(self) -> TrialRecord | None:
        """Return the complete trial with the best value of the main objective, finalists first.

        Returns:
            None if no complete trial satisfies the limits.
        """
        ranked = self.rank()
        return ranked[0].record if ranked else None

    def rank(self) -> list[RankedTrial]:
        """Return the complete trials within the limits, the best first; see :mod:`search.ledger.ranking`."""
        return rank_trials(self._iterate_records(), self.metrics[0], maximized=self.maximized, limits=self.limits)
