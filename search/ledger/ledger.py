"""The ledger: stores all trials of a study with their scores and their state, in an Optuna storage.

A trial that was stopped early is stored as PRUNED with the values of all its epochs. A finished trial is stored as
COMPLETE with the values of its best epoch, and a failed trial as FAIL with its reason.

A trial that was running when its driver process ended stays RUNNING, and a resume continues it. If its draw was not
completed, the draw is repeated: it depends only on the seed, the trial's number and the earlier trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import Trial

from clinie_core.config import Fold, TrialConfig
from search.config.objectives import Limit, Objective
from search.config.search_space import SearchSpace
from search.config.space_file import Algorithm, Finalists
from search.ledger.equal_trials import EqualTrials
from search.ledger.ledger_reader import LATE_PREFIX, LedgerReader
from search.ledger.ranking import MissingRun, list_missing_runs
from search.ledger.records import (
    DRIVER,
    FOLD,
    INFEASIBLE,
    OPTUNA_STATES,
    PAUSED,
    RESOURCE_CLASS,
    SAME_AS,
    SEED,
    STOPPED,
    State,
    TrialRecord,
)
from search.ledger.studies import create_study, load_study
from search.ledger.trial_chooser import TrialChooser
from search.ledger.trial_queue import TrialQueue
from search.trials.listener import FinalState

if TYPE_CHECKING:
    from search.ledger.leases import StudyLeases

__all__ = ["Ledger", "Storage"]

Result = TypeVar("Result")

Storage = BaseStorage


class Ledger(LedgerReader):
    """The trials of one study.

    Use :meth:`create` for a new study and :meth:`open` for one that exists.

    Args:
        storage: The Optuna storage of the study.
        study: The Optuna study.
        algorithm: The sampler that draws new trials; None for a ledger that is only read.
    """

    def __init__(self, storage: BaseStorage, study: optuna.Study, algorithm: Algorithm | None = None) -> None:
        super().__init__(storage, study)
        self.queue = TrialQueue(storage, study, algorithm)
        """Trials that are created before their configuration is drawn."""
        self._trials: dict[int, Trial] = {}
        self._equals = EqualTrials()
        self._drawn: set[int] = set()
        self.leases: StudyLeases | None = None
        """Leases of this driver on its trials; None if the study has one driver at most."""

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

    def set_attribute(self, key: str, value: object) -> None:
        """Store an attribute of the study, a JSON value."""
        self._study.set_user_attr(key, value)

    def ask(self, space: SearchSpace, number: int | None = None) -> tuple[int, TrialConfig]:
        """Create a trial and draw its configuration.

        Args:
            space: The space to draw from.
            number: Number of the trial to draw, which may be enqueued; None for the next one of the queue.

        Returns:
            Number and configuration of the trial.
        """
        trial = self.queue.create_trial(space) if number is None else self.queue.start_trial(space, number)
        self._trials[trial.number] = trial
        config = space.suggest(TrialChooser(trial))
        attributes = self._storage.get_trial(trial._trial_id).user_attrs
        if SEED in attributes:
            config = config.model_copy(update={"seed": attributes[SEED]})
        if FOLD in attributes:
            config = config.model_copy(update={"fold": Fold.model_validate(attributes[FOLD])})
        trial.set_user_attr("config", config.model_dump(mode="json"))
        self._configs[trial.number] = config
        self._drawn.add(trial.number)
        return trial.number, config

    def has_drawn(self, number: int) -> bool:
        """Return whether this object has drawn a trial, so that no earlier or other driver has started it."""
        return number in self._drawn

    def set_driver(self, number: int, driver: str) -> None:
        """Store the name of the driver that trains a trial."""
        self._get_trial(number).set_user_attr(DRIVER, driver)

    def set_resource_class(self, number: int, name: str) -> None:
        """Store the name of the resource class that trains a trial."""
        if self.get_resource_class(number) != name:
            self._get_trial(number).set_user_attr(RESOURCE_CLASS, name)

    def get_resource_class(self, number: int) -> str | None:
        """Return the name of the resource class that has trained a trial last; None before its first epoch."""
        name: str | None = self._get_trial(number).user_attrs.get(RESOURCE_CLASS)
        return name

    def run_exclusively(self, section: Callable[[], Result]) -> Result:
        """Run a repeatable function while no other driver of the study runs one."""
        return section() if self.leases is None else self.leases.run_exclusively(section)

    def _check_leases(self) -> None:
        if self.leases is not None:
            self.leases.check()

    def enqueue_finals(self, finalists: Finalists) -> int:
        """Enqueue the runs with other seeds, or on other folds, that the finalists lack, and return their number.

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

    def find_equal(self, number: int, config: TrialConfig) -> TrialRecord | None:
        """Return an earlier trial with an identical configuration and a result; None if there is none.

        Args:
            number: Number of the trial that was drawn.
            config: Its configuration.
        """
        if self.leases is not None or self._equals.is_empty:  # other drivers add trials
            self._equals.add(other for other in self._iterate_records() if other.number != number)
        earlier = self._equals.find(number, config)
        record = self.record(earlier) if earlier is not None else None
        is_ended = record is not None and record.state in ("complete", "pruned", "infeasible")
        if record is not None and is_ended and record.reason != STOPPED:
            return record
        self._equals.replace(number, config)  # the earlier one has failed, was stopped or is not trained yet
        return None

    def mark_as_equal(self, number: int, earlier: int) -> None:
        """Store that a trial has the results of an earlier one and is not trained."""
        self._get_trial(number).set_user_attr(SAME_AS, earlier)

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

    def set_locations(self, number: int, locations: Mapping[str, str]) -> None:
        """Store where the results of a trial are. Another thread may call this method.

        Args:
            number: The trial.
            locations: Values of ``run_id`` and ``checkpoint``. Those of a trial that has ended are stored with the
                study, because Optuna does not change trials that have ended.
        """
        for key, value in locations.items():
            if number in self._trials:
                with suppress(UpdateFinishedTrialError):  # the trial has ended since
                    self._storage.set_trial_user_attr(self._get_trial_id(number), key, value)
                    continue
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
        self._check_leases()
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
        self._check_leases()
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
        if self.leases is not None:
            self.leases.release(number)

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
        """Mark the trials of this driver that have not ended as interrupted, so that a resume continues them.

        Args:
            reason: Why the trials were interrupted.

        Returns:
            Numbers of the trials.
        """
        numbers = [record.number for record in self.records() if record.state in ("running", "paused")]
        if self.leases is not None:
            own = self.leases.find_own()
            numbers = [number for number in numbers if number in own]
        for number in numbers:
            self._get_trial(number).set_user_attr("interrupted", reason)
        return numbers
