"""The ledger: stores all trials of a study with their scores and their state, in an Optuna storage.

A trial that was stopped early is stored as PRUNED with the values of all its epochs. A finished trial is stored as
COMPLETE with the values of its best epoch, and a failed trial as FAIL with its reason.

A trial that was running when its driver process ended stays RUNNING, and a resume continues it. If its draw was not
completed, the draw is repeated: it depends only on the seed, the trial's number and the earlier trials.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from clinie_core.config import TrialConfig
from search.config.objectives import Limit, Objective
from search.config.search_space import SearchSpace
from search.config.space_file import Algorithm, Finalists
from search.ledger.importances import compute_importances
from search.ledger.ranking import MissingRun, RankedTrial, list_missing_runs, rank_trials
from search.ledger.records import (
    INFEASIBLE,
    OPTUNA_STATES,
    PAUSED,
    REPEATS,
    SAME_AS,
    SEED,
    STOPPED,
    UNFINISHED,
    State,
    TrialRecord,
    make_record,
)
from search.ledger.studies import create_study, load_study
from search.ledger.trial_chooser import TrialChooser
from search.ledger.trial_queue import TrialQueue
from search.trials.listener import FinalState

__all__ = ["Ledger", "Storage"]

Storage = BaseStorage
LATE_PREFIX = "late."
"""Prefix of the study attributes that hold what a trial's end came too early for: ``late.NUMBER.NAME``."""


class Ledger:
    """The trials of one study.

    Use :meth:`create` for a new study and :meth:`open` for one that exists.

    Args:
        storage: The Optuna storage of the study.
        study: The Optuna study.
        algorithm: The sampler that draws new trials; None for a ledger that is only read.
    """

    def __init__(self, storage: BaseStorage, study: optuna.Study, algorithm: Algorithm | None = None) -> None:
        self._storage = storage
        self._study = study
        self.queue = TrialQueue(storage, study, algorithm)
        """Trials that are created before their configuration is drawn."""
        self._trials: dict[int, Trial] = {}
        self._configs: dict[int, TrialConfig] = {}  # of running trials, so that each is parsed once
        self._digests: dict[str, int] | None = None  # first trial with each configuration

    @classmethod
    def create(
        cls,
        storage: BaseStorage,
        name: str,
        objectives: Sequence[Objective],
        algorithm: Algorithm,
        attributes: Mapping[str, Any],
        first_points: Iterable[Mapping[str, Any]] = (),
        limits: Iterable[Limit] = (),
    ) -> Ledger:
        """Create a study.

        Args:
            storage: Storage of the new study.
            name: Name of the study.
            objectives: Metrics that the study optimizes, the main one first.
            algorithm: The sampler, and the points to evaluate first.
            attributes: Attributes of the study, as JSON values.
            first_points: Further points to evaluate first, after those of ``algorithm``.
            limits: Limits on metrics that the best trial has to satisfy.

        Raises:
            InputError: If a study of that name exists.
        """
        points = (*algorithm.points_to_evaluate, *first_points)
        study = create_study(storage, name, objectives, attributes, points, limits)
        return cls(storage, study, algorithm)

    @classmethod
    def open(cls, storage: BaseStorage, name: str, algorithm: Algorithm | None = None) -> Ledger:
        """Open a study that exists.

        Args:
            storage: Storage of the study.
            name: Name of the study.
            algorithm: The sampler that draws new trials; None to read only.

        Raises:
            InputError: If there is no study of that name.
        """
        return cls(storage, load_study(storage, name), algorithm)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the study, by name."""
        return dict(self._study.user_attrs)

    def set_attribute(self, key: str, value: object) -> None:
        """Store an attribute of the study, a JSON value."""
        self._study.set_user_attr(key, value)

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

    def ask(self, space: SearchSpace) -> tuple[int, TrialConfig]:
        """Create a trial and draw its configuration.

        Args:
            space: The space to draw from.

        Returns:
            Number and configuration of the trial.
        """
        trial = self.queue.create_trial(space)
        self._trials[trial.number] = trial
        config = space.suggest(TrialChooser(trial))
        attributes = self._storage.get_trial(trial._trial_id).user_attrs
        if SEED in attributes:
            config = config.model_copy(update={"seed": attributes[SEED]})
        trial.set_user_attr("config", config.model_dump(mode="json"))
        self._configs[trial.number] = config
        return trial.number, config

    def enqueue_finals(self, finalists: Finalists) -> int:
        """Enqueue the runs with other seeds that the finalists lack, and return their number.

        Args:
            finalists: Number of finalists and of their seeds.
        """
        records = self.records()
        missing = self._list_missing_finals(finalists, records)
        self.queue.enqueue_repeats(missing, {record.number: record.parameters for record in records})
        return len(missing)

    def count_finals(self, finalists: Finalists | None) -> int:
        """Return the number of runs of finalists that have not ended or are missing."""
        started = self.queue.count_open_repeats()
        return started + (len(self._list_missing_finals(finalists, self.records())) if finalists and not started else 0)

    def _list_missing_finals(self, finalists: Finalists, records: Sequence[TrialRecord]) -> list[MissingRun]:
        return list_missing_runs(records, self.metrics[0], finalists, maximized=self.maximized, limits=self.limits)

    def is_repeat(self, number: int) -> bool:
        """Return whether a trial repeats another one with another seed."""
        return REPEATS in self._storage.get_trial(self._get_trial_id(number)).user_attrs

    def find_equal(self, number: int, config: TrialConfig) -> TrialRecord | None:
        """Return an earlier trial with an identical configuration and a result; None if there is none.

        Args:
            number: Number of the trial that was drawn.
            config: Its configuration.
        """
        if self._digests is None:
            self._digests = {}
            for other in self._iterate_records():
                if other.config is not None and other.number != number:
                    self._digests.setdefault(other.config.digest(), other.number)
        earlier = self._digests.setdefault(config.digest(), number)
        record = self.record(earlier) if earlier != number else None
        is_ended = record is not None and record.state in ("complete", "pruned", "infeasible")
        if record is not None and is_ended and record.reason != STOPPED:
            return record
        self._digests[config.digest()] = number  # the earlier one has failed, was stopped or is not trained yet
        return None

    def mark_as_equal(self, number: int, earlier: int) -> None:
        """Store that a trial has the results of an earlier one and is not trained."""
        self._get_trial(number).set_user_attr(SAME_AS, earlier)

    def count_trials(self) -> int:
        """Return the number of all trials, which is the number of the next one."""
        return self._storage.get_n_trials(self._study._study_id)

    def find_interrupted_trials(self) -> list[TrialRecord]:
        """Return the drawn trials that have not ended, in order of number."""
        return [record for record in self.records() if record.state in UNFINISHED and record.config]

    def resume_trial(self, number: int) -> None:
        """Mark an interrupted or paused trial as running."""
        trial = self._get_trial(number)
        for mark in ("interrupted", PAUSED):
            if trial.user_attrs.get(mark):
                trial.set_user_attr(mark, None)

    def pause_trial(self, number: int) -> None:
        """Mark a running trial as paused."""
        self._get_trial(number).set_user_attr(PAUSED, True)

    def _get_trial(self, number: int) -> Trial:
        if number not in self._trials:
            self._trials[number] = Trial(self._study, self._get_trial_id(number))
        return self._trials[number]

    def _get_trial_id(self, number: int) -> int:
        """Return a trial's id in the storage without reading all trials."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def set_locations(self, number: int, locations: Mapping[str, str]) -> None:
        """Store where the results of a trial are.

        Args:
            number: The trial.
            locations: Values of ``run_id`` and ``checkpoint``. Those of a trial that has ended are stored with the
                study, because Optuna does not change trials that have ended.
        """
        for key, value in locations.items():
            if number in self._trials:
                self._trials[number].set_user_attr(key, value)
            else:
                self._study.set_user_attr(f"{LATE_PREFIX}{number}.{key}", value)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Store the metrics of one epoch of a running trial; an epoch that is stored already does not change.

        Args:
            number: The trial.
            epoch: 1-based number of the epoch.
            metrics: Values of all metrics.

        Returns:
            Whether the epoch is new.
        """
        trial = self._get_trial(number)
        stored = self._storage.get_trial(trial._trial_id)
        if f"epoch.{epoch}" in stored.user_attrs:
            return False
        # The attribute comes last: an epoch without it is repeated if the process ends or the disk is full in between.
        # Optuna stores no intermediate values for several objectives.
        if len(self.metrics) == 1 and epoch not in stored.intermediate_values:
            trial.report(metrics[self.metrics[0]], epoch)
        trial.set_user_attr(f"epoch.{epoch}", dict(metrics))
        return True

    def classify_end(self, number: int, *, finished: bool) -> tuple[FinalState, str | None]:
        """Return the state of a trial that ended without an error, and the reason if it failed.

        A trial fails if an objective is not a finite number in its best epoch, because Optuna rejects such values.

        Args:
            number: The trial.
            finished: Whether it used its budget or its patience, so that no scheduler stopped it.
        """
        metrics = self.record(number).metrics
        if not metrics and not finished:
            return "pruned", None
        bad = [name for name in self.metrics if not math.isfinite(metrics.get(name, math.nan))]
        if bad:
            return "failed", f"{', '.join(bad)} is not a finite number"
        return "complete" if finished else "pruned", None

    def end(self, number: int, state: State, reason: str | None = None) -> None:
        """Store the end of a trial.

        Args:
            number: The trial.
            state: ``complete`` with the values of its best epoch, ``pruned`` if it was stopped before it used its
                budget, ``infeasible`` if it did not fit into memory, or ``failed``.
            reason: Why it failed or did not fit, without document text.
        """
        if state == "infeasible":  # a constraint above zero tells samplers to avoid similar configurations
            self._get_trial(number).set_user_attr(INFEASIBLE, True)
            self._get_trial(number).set_constraint("memory", 1.0)
        if reason is not None:
            self._get_trial(number).set_user_attr("reason", reason)
        if self.limits and state in ("complete", "pruned"):
            self._set_constraints(number, stopped=state == "pruned")
        if state == "complete":
            metrics = self.record(number).metrics
            self._study.tell(number, [metrics[name] for name in self.metrics])
        else:
            self._study.tell(number, state=OPTUNA_STATES[state])
        self._trials.pop(number, None)
        self._configs.pop(number, None)

    def _set_constraints(self, number: int, *, stopped: bool) -> None:
        """Store the violation of each limit, so that samplers avoid configurations like this one.

        A stopped trial is not judged by limits that it could have satisfied later.
        """
        metrics = self.record(number).metrics
        if not metrics:
            return
        for limit in self.limits:
            violation = 0.0 if stopped and limit.improves_with_training else limit.compute_violation(metrics)
            self._get_trial(number).set_constraint(f"limits.{limit.metric}", violation)

    def interrupt(self, reason: str) -> list[int]:
        """Mark every trial that has not ended as interrupted, so that a resume continues it.

        Args:
            reason: Why the trials were interrupted.

        Returns:
            Numbers of the trials.
        """
        numbers = [record.number for record in self.records() if record.state in ("running", "paused")]
        for number in numbers:
            self._get_trial(number).set_user_attr("interrupted", reason)
        return numbers

    def record(self, number: int) -> TrialRecord:
        """Return the record of one trial."""
        trial = self._storage.get_trial(self._get_trial_id(number))
        record = make_record(trial, self._read_late_attributes().get(number), self._configs.get(number))
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
