"""The ledger: the one record of which trials exist, what they scored, and how they ended.

It is an Optuna storage (a journal file by default, a database by URL) and the only module, beside
the samplers, that imports Optuna. A trial that was stopped early stands as PRUNED with every
epoch's value, a finished one as COMPLETE with its best epoch's, a crashed one as FAIL with its reason.
A trial that was under way when its driver ended stays RUNNING and is taken up again by a resume, also one that
was not drawn in whole: a draw depends on the seed, the trial's number and the trials before it, and on nothing else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from clinie_core.config import TrialConfig
from clinie_core.errors import fail
from search.config.domains import Scalar
from search.config.objectives import Objective
from search.config.search_space import SearchSpace
from search.config.space_file import Algorithm
from search.ledger.samplers import make_sampler
from search.ledger.storage import open_storage
from search.storage.home import Home

__all__ = ["ENDED", "Ledger", "State", "Storage", "TrialRecord", "open_storage", "study_names"]

Storage = BaseStorage
State = Literal["running", "interrupted", "complete", "pruned", "infeasible", "failed"]
ENDED: tuple[State, ...] = ("complete", "pruned", "infeasible", "failed")
"""How a trial can have ended; an infeasible one did not fit into memory, a constraint to Optuna's samplers."""
FINISHED: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
LATE = "late."
INFEASIBLE = "infeasible"
LEAST_FOR_IMPORTANCE = 10
ENDS = {**{state: end for end, state in FINISHED.items()}, "infeasible": TrialState.PRUNED}
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning, module=r"optuna|search")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the ledger has it.

    Args:
        number: Its number in the study, from 0.
        state: How it stands.
        config: Its configuration; None if it was never drawn in whole.
        parameters: The searched dimensions, by path.
        epochs: Metrics by epoch.
        reason: Why it failed or was interrupted.
        run_id: Its MLflow run.
        checkpoint: URI of its best checkpoint.
    """

    number: int
    state: State
    config: TrialConfig | None
    parameters: dict[str, Any]
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    reason: str | None = None
    run_id: str | None = None
    checkpoint: str | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose checkpoint is kept: the first with the highest selection score."""
        if self.config is None or not self.epochs:
            return None
        metric = self.config.selection
        return max(sorted(self.epochs), key=lambda e: self.epochs[e].get(metric, -math.inf))

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best epoch; empty before the first epoch."""
        return dict(self.epochs[self.best_epoch]) if self.best_epoch is not None else {}

    def as_json(self) -> dict[str, Any]:
        """The record for ``--json``."""
        return {
            "number": self.number,
            "state": self.state,
            "parameters": self.parameters,
            "metrics": self.metrics,
            "best_epoch": self.best_epoch,
            "epochs": len(self.epochs),
            "reason": self.reason,
            "run_id": self.run_id,
            "checkpoint": self.checkpoint,
            "started": self.started.isoformat() if self.started else None,
            "ended": self.ended.isoformat() if self.ended else None,
        }


class _TrialChooser:
    """Lets an Optuna trial draw the dimensions of a space."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def choose(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        return self._trial.suggest_categorical(name, list(choices))

    def real(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        return self._trial.suggest_int(name, low, high, log=log)


def study_names(home: Home) -> list[str]:
    """The studies in a home's ledger."""
    if home.ledger is None and not home.ledger_file.exists():
        return []
    return sorted(optuna.get_all_study_names(open_storage(home)))


class Ledger:
    """One study's trials.

    Args:
        storage: Where it is kept.
        study: The Optuna study behind it; see :meth:`create` and :meth:`open`.
        algorithm: The sampler to draw by; none is needed to read.
    """

    def __init__(self, storage: BaseStorage, study: optuna.Study, algorithm: Algorithm | None = None) -> None:
        self._storage = storage
        self._study = study
        self._algorithm = algorithm
        self._trials: dict[int, Trial] = {}
        self._torn: list[FrozenTrial] | None = None  # begun by a driver that ended before they were drawn in whole
        self._waiting: list[int] = []  # points to try first that nobody has begun

    @classmethod
    def create(
        cls,
        storage: BaseStorage,
        name: str,
        objectives: Sequence[Objective],
        algorithm: Algorithm,
        attributes: Mapping[str, Any],
    ) -> Ledger:
        """Begin a study.

        Args:
            storage: Where it is kept.
            name: Its name.
            objectives: What it optimizes.
            algorithm: Its sampler, and the points to try first.
            attributes: What belongs to the study as a whole, as JSON values.

        Raises:
            InputError: If there is a study of that name.
        """
        if name in optuna.get_all_study_names(storage):
            fail("study", f"study {name!r} exists", allowed="a new name", remedy=f"go on with it: clinie resume {name}")
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[objective.direction for objective in objectives],
            sampler=make_sampler(algorithm),
        )
        study.set_user_attr("objectives", [o.metric for o in objectives])
        for key, value in attributes.items():
            study.set_user_attr(key, value)
        for point in algorithm.points_to_evaluate:
            study.enqueue_trial(dict(point))
        return cls(storage, study, algorithm)

    @classmethod
    def open(cls, storage: BaseStorage, name: str, algorithm: Algorithm | None = None) -> Ledger:
        """Open a study that exists.

        Args:
            storage: Where it is kept.
            name: Its name.
            algorithm: The sampler to go on with; none is needed to read.

        Raises:
            InputError: If there is no study of that name.
        """
        names = optuna.get_all_study_names(storage)
        if name not in names:
            fail(
                "study", f"no study {name!r} in this home", allowed="one of " + (", ".join(sorted(names)) or "none yet")
            )
        return cls(storage, optuna.load_study(storage=storage, study_name=name), algorithm)

    @property
    def name(self) -> str:
        """The study's name."""
        return self._study.study_name

    @property
    def attributes(self) -> dict[str, Any]:
        """What belongs to the study as a whole."""
        return dict(self._study.user_attrs)

    def set_attribute(self, key: str, value: object) -> None:
        """Keep something that belongs to the study as a whole, as a JSON value."""
        self._study.set_user_attr(key, value)

    @property
    def metrics(self) -> list[str]:
        """The objectives' metrics, the first one first."""
        return list(self._study.user_attrs["objectives"])

    @property
    def maximized(self) -> bool:
        """Whether more of the first objective is better."""
        return self._study.directions[0] == optuna.study.StudyDirection.MAXIMIZE

    def ask(self, space: SearchSpace) -> tuple[int, TrialConfig]:
        """Take up a new trial.

        Args:
            space: The space to draw from.

        Returns:
            The trial's number and configuration.
        """
        trial = self._next()
        self._trials[trial.number] = trial
        config = space.suggest(_TrialChooser(trial))
        trial.set_user_attr("config", config.model_dump(mode="json"))
        return trial.number, config

    def _next(self) -> Trial:
        """A trial to draw: one that was begun and not drawn in whole, else a new one."""
        assert self._algorithm is not None, "a ledger that draws is opened with an algorithm"
        if self._torn is None:  # looked for once: what an earlier driver has left changes no more
            trials = self._study.get_trials(deepcopy=False)
            self._torn = [t for t in trials if t.state == TrialState.RUNNING and "config" not in t.user_attrs]
            self._waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        if self._torn:
            torn = self._torn.pop(0)
            self._study.sampler = make_sampler(self._algorithm, torn.number)
            return Trial(self._study, torn._trial_id)
        number = self._waiting.pop(0) if self._waiting else self._storage.get_n_trials(self._study._study_id)
        self._study.sampler = make_sampler(self._algorithm, number)
        return self._study.ask()

    def interrupted_trials(self) -> list[TrialRecord]:
        """Trials whose driver ended before them, in order of number."""
        return [record for record in self.records() if record.state in ("running", "interrupted") and record.config]

    def resume_trial(self, number: int) -> None:
        """Go on with an interrupted trial."""
        self._handle(number).set_user_attr("interrupted", None)

    def _handle(self, number: int) -> Trial:
        if number not in self._trials:
            self._trials[number] = Trial(self._study, self._id(number))
        return self._trials[number]

    def _id(self, number: int) -> int:
        """A trial's id in the storage, without a list of all trials, which grows."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def set_locations(self, number: int, places: Mapping[str, str]) -> None:
        """Keep where a trial is to be found: ``run_id``, ``checkpoint``.

        A trial that has ended takes no further attributes; the study keeps those that come late.
        """
        for key, value in places.items():
            if number in self._trials:
                self._trials[number].set_user_attr(key, value)
            else:
                self._study.set_user_attr(f"{LATE}{number}.{key}", value)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record one epoch of a running trial; an epoch that is recorded already stays as it is.

        Returns:
            Whether the epoch is new.
        """
        trial = self._handle(number)
        if f"epoch.{epoch}" in trial.user_attrs:
            return False
        trial.set_user_attr(f"epoch.{epoch}", dict(metrics))
        if len(self.metrics) == 1:  # Optuna keeps no curve under several objectives; the attribute does
            trial.report(metrics[self.metrics[0]], epoch)
        return True

    def outcome(self, number: int, *, finished: bool) -> tuple[State, str | None]:
        """How a trial that ended without an error stands, and the reason if that is a failure.

        A value that is not a finite number is a failure: Optuna refuses it, and no sampler can use it.

        Args:
            number: The trial.
            finished: Whether it ended by itself, by its budget or its own patience.
        """
        if not finished:
            return "pruned", None
        metrics = self.record(number).metrics
        bad = [name for name in self.metrics if not math.isfinite(metrics.get(name, math.nan))]
        return ("failed", f"{', '.join(bad)} is not a finite number") if bad else ("complete", None)

    def end(self, number: int, state: State, reason: str | None = None) -> None:
        """Record how a trial ended.

        Args:
            number: The trial.
            state: ``complete`` with the values of its best epoch, ``pruned`` if it was stopped before
                its budget, ``infeasible`` if it did not fit into memory, or ``failed``.
            reason: Why it failed or did not fit, without document text.
        """
        if state == "infeasible":  # samplers keep away from what breaks a constraint, its value above zero
            self._handle(number).set_user_attr(INFEASIBLE, True)
            self._handle(number).set_constraint("memory", 1.0)
        if reason is not None:
            self._handle(number).set_user_attr("reason", reason)
        if state == "complete":
            metrics = self.record(number).metrics
            self._study.tell(number, [metrics[name] for name in self.metrics])
        else:
            self._study.tell(number, state=ENDS[state])
        self._trials.pop(number, None)

    def interrupt(self, reason: str) -> list[int]:
        """Mark every trial that is under way as interrupted; a resume goes on with it.

        Returns:
            Their numbers.
        """
        numbers = [record.number for record in self.records() if record.state == "running"]
        for number in numbers:
            self._handle(number).set_user_attr("interrupted", reason)
        return numbers

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return _record(self._storage.get_trial(self._id(number)), self._late())

    def _late(self) -> dict[int, dict[str, str]]:
        """What the study keeps of trials that had ended; by number."""
        late: dict[int, dict[str, str]] = {}
        for key, value in self._study.user_attrs.items():
            if key.startswith(LATE):
                number, _, name = key.removeprefix(LATE).partition(".")
                late.setdefault(int(number), {})[name] = value
        return late

    def records(self) -> list[TrialRecord]:
        """All trials that were taken up, in order of number."""
        return list(self._records())

    def _records(self) -> Iterator[TrialRecord]:
        late = self._late()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state != TrialState.WAITING:
                yield _record(trial, late)

    def importances(self) -> dict[str, float]:
        """Share of each dimension in the variation of the first objective, the largest first.

        By PED-ANOVA over the finished trials, for the dimensions that all of them have; empty with too few.
        Source: Watanabe et al. 2023, IJCAI.
        """
        metric = self.metrics[0]
        values = {record.number: record.metrics.get(metric) for record in self._records() if record.state == "complete"}
        if len(values) < LEAST_FOR_IMPORTANCE or len(set(values.values())) < 2:
            return {}
        return dict(
            optuna.importance.get_param_importances(
                self._study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=lambda trial: float(values[trial.number] or 0.0),
            )
        )

    def best(self) -> TrialRecord | None:
        """The finished trial that is best on the first objective; None before the first one finishes."""
        metric, sign = self.metrics[0], 1 if self.maximized else -1
        complete = [r for r in self._records() if r.state == "complete"]
        return max(complete, key=lambda r: (sign * r.metrics[metric], -r.number), default=None)


def _record(trial: FrozenTrial, late: Mapping[int, Mapping[str, str]]) -> TrialRecord:
    attributes: dict[str, Any] = {**trial.user_attrs, **late.get(trial.number, {})}
    interrupted = attributes.get("interrupted")
    config = attributes.get("config")
    ended: State | None = "infeasible" if attributes.get(INFEASIBLE) else FINISHED.get(trial.state)
    return TrialRecord(
        number=trial.number,
        state=ended or ("interrupted" if interrupted else "running"),
        config=TrialConfig.model_validate(config) if config else None,
        parameters=dict(trial.params),
        epochs={int(k.removeprefix("epoch.")): dict(v) for k, v in attributes.items() if k.startswith("epoch.")},
        reason=attributes.get("reason") or interrupted,
        run_id=attributes.get("run_id"),
        checkpoint=attributes.get("checkpoint") or None,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )
