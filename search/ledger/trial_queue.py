"""The queue of a study: trials that are created before their configuration is drawn.

These are points to evaluate first, clones, runs of finalists, and trials whose draw an earlier driver did not complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.config.search_space import SearchSpace
from search.config.space_file import Algorithm
from search.ledger.ranking import MissingRun
from search.ledger.records import CLONE, FOLD, REPEATS, SEED
from search.ledger.samplers import make_sampler

__all__ = ["TrialQueue"]


class TrialQueue:
    """Trials of a study that are created before their configuration is drawn.

    Args:
        storage: The Optuna storage of the study.
        study: The Optuna study.
        algorithm: The sampler that draws new trials; None for a ledger that is only read.
    """

    def __init__(self, storage: BaseStorage, study: optuna.Study, algorithm: Algorithm | None) -> None:
        self._storage = storage
        self._study = study
        self._algorithm = algorithm
        self._incomplete: list[FrozenTrial] | None = None  # trials of an earlier driver without a complete draw
        self._enqueued: list[int] = []  # numbers of the points to evaluate first that no driver has started

    def create_trial(self, space: SearchSpace) -> Trial:
        """Return a trial to draw: one whose draw an earlier driver did not complete, else a new one."""
        if self._incomplete is None:  # read once: trials of an earlier driver do not change any more
            trials = self._study.get_trials(deepcopy=False)
            self._incomplete = [t for t in trials if t.state == TrialState.RUNNING and "config" not in t.user_attrs]
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            self._enqueued = [t.number for t in sorted(waiting, key=lambda t: REPEATS not in t.user_attrs)]
        if self._incomplete:
            return self.start_trial(space, self._incomplete.pop(0).number)
        return self.start_trial(space, self._enqueued.pop(0) if self._enqueued else self._count_trials())

    def start_trial(self, space: SearchSpace, number: int) -> Trial:
        """Return a trial to draw by its number: an enqueued one, one whose draw was not completed, or the next one."""
        assert self._algorithm is not None, "a ledger that draws trials needs an algorithm"
        self._study.sampler = make_sampler(self._algorithm, space, number)
        if number == self._count_trials():
            return self._study.ask()
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        if self._storage.get_trial(trial_id).state == TrialState.WAITING:
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return Trial(self._study, trial_id)

    def read_trials(self) -> list[FrozenTrial]:
        """Return all trials as stored, in order of number."""
        return self._study.get_trials(deepcopy=False)

    def enqueue_repeats(self, runs: Sequence[MissingRun], parameters: Mapping[int, Mapping[str, Any]]) -> None:
        """Enqueue further runs of finalists, before points that the budget did not reach.

        Args:
            runs: The runs.
            parameters: Values of the searched dimensions, by number of the trial.
        """
        first = self._count_trials()
        for run in runs:
            attributes: dict[str, Any] = {REPEATS: run.number, SEED: run.seed}
            if run.fold is not None:
                attributes[FOLD] = run.fold.model_dump(mode="json")
            self._study.enqueue_trial(dict(parameters[run.number]), user_attrs=attributes)
        self._enqueued[:0] = range(first, first + len(runs))

    def count_open_repeats(self) -> int:
        """Return the number of created runs of finalists that have not ended."""
        trials = self._study.get_trials(deepcopy=False)
        return sum(REPEATS in trial.user_attrs and not trial.state.is_finished() for trial in trials)

    def enqueue_clone(self, point: Mapping[str, Any], command: str) -> None:
        """Create a trial whose configuration is drawn next, with given values of some dimensions.

        Args:
            point: The values, by path.
            command: Id of the command that requests the trial; see :meth:`find_clones`.
        """
        number = self._count_trials()
        self._study.enqueue_trial(dict(point), user_attrs={CLONE: command})
        if self._incomplete is not None:  # otherwise, the first draw reads it
            self._enqueued.append(number)

    def find_clones(self) -> dict[str, int]:
        """Return the numbers of the trials that commands have requested, by the id of the command."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.user_attrs[CLONE]: trial.number for trial in trials if CLONE in trial.user_attrs}

    def _count_trials(self) -> int:
        return self._storage.get_n_trials(self._study._study_id)
