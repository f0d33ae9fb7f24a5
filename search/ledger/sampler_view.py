"""The trials of a study as a sampler sees them.

Optuna's samplers ignore failed trials, and some of them ignore stopped trials, too. Here, a failed trial violates a
constraint, as a trial that does not fit into memory does. A sampler that reads complete trials only sees such a trial
with the worst known values, and a stopped trial with those of its best epoch.

The number of trials that a sampler reads is bounded, because the time of a draw grows with it.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any, cast

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.ledger.records import INFEASIBLE, find_best_values

__all__ = ["MAX_TRIALS_READ", "TrialView"]

MAX_TRIALS_READ = 160
"""Largest number of ended trials that a sampler with a bound reads; TPE takes about 30 ms for a draw from them."""
BEST_SHARE = 0.25
"""Share of these trials that are the best ones; the others are the latest ones."""
CONSTRAINTS = "constraints"
"""Beginning of the system attributes of Optuna for constraints."""
FAILED_CONSTRAINT = f"{CONSTRAINTS}:failed"
"""System attribute of Optuna for a constraint of this name; above zero, the trial is infeasible."""


class TrialView(BaseSampler):
    """A sampler that draws with another sampler, which sees the trials as this module describes.

    Args:
        sampler: The sampler that draws.
        complete_only: Whether the sampler reads complete trials only.
        bounded: Whether to bound the number of trials that the sampler reads. A sampler that finds its own earlier
            draws among the trials, such as a genetic algorithm, needs all of them.
    """

    def __init__(self, sampler: BaseSampler, *, complete_only: bool, bounded: bool) -> None:
        self._sampler = sampler
        self._complete_only = complete_only
        self._bounded = bounded
        self._seen: Study | None = None

    def _look(self, study: Study) -> Study:
        """Return the study with the trials to see, which are read once."""
        if self._seen is None:
            metrics: Sequence[str] = study.user_attrs.get("objectives", ())
            trials = study.get_trials(deepcopy=False)
            seen = _convert(trials, metrics, study.directions, complete_only=self._complete_only)
            if self._bounded:
                seen = _select(seen, study.directions)
            self._seen = cast("Study", _StudyWithTrials(study, seen))
        return self._seen

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.infer_relative_search_space(self._look(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.sample_relative(self._look(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.sample_independent(self._look(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._sampler.after_trial(study, trial, state, values)


class _StudyWithTrials:
    """A study with other trials; everything else is that of the study."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


def _convert(
    trials: Sequence[FrozenTrial],
    metrics: Sequence[str],
    directions: Sequence[StudyDirection],
    *,
    complete_only: bool,
) -> list[FrozenTrial]:
    """Return the trials as a sampler sees them, in order of number."""
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    known = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
    worst = [sign * max(sign * values[i] for values in known) for i, sign in enumerate(signs)] if known else None

    def convert(trial: FrozenTrial) -> FrozenTrial:
        failed = trial.state == TrialState.FAIL
        infeasible = failed or bool(trial.user_attrs.get(INFEASIBLE))
        if not (failed or trial.state == TrialState.PRUNED) or (not failed and not complete_only):
            return trial
        seen = copy.copy(trial)
        if failed:
            seen.system_attrs = {**trial.system_attrs, FAILED_CONSTRAINT: 1.0}
        seen.state = TrialState.PRUNED
        if complete_only:
            own = None if infeasible else find_best_values(trial.user_attrs, metrics)
            values = own or worst
            if values is None:
                return trial
            seen.values, seen.state = values, TrialState.COMPLETE
        return seen

    seen = [convert(trial) for trial in trials]
    # A Gaussian process needs the same constraints in all trials.
    return [_merge_constraints(trial) for trial in seen] if any(trial.constraints for trial in seen) else seen


def _merge_constraints(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with the sum of its violations as its only constraint."""
    merged = copy.copy(trial)
    kept = {key: value for key, value in trial.system_attrs.items() if not key.startswith(CONSTRAINTS)}
    violation = sum(value for value in trial.constraints.values() if value > 0)
    merged.system_attrs = {**kept, f"{CONSTRAINTS}:total": violation}
    return merged


def _select(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return at most :data:`MAX_TRIALS_READ` ended trials, the best and the latest, and all that have not ended."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    if len(ended) <= MAX_TRIALS_READ:
        return list(trials)
    kept = {trial.number for trial in ended[-int((1 - BEST_SHARE) * MAX_TRIALS_READ) :]}
    complete = [t for t in ended if t.state == TrialState.COMPLETE and _is_feasible(t) and t.number not in kept]
    rankings = [sorted(complete, key=_make_key(i, direction)) for i, direction in enumerate(directions)]
    best = (trial.number for rank in zip(*rankings, strict=True) for trial in rank)
    for number in best:
        if len(kept) >= MAX_TRIALS_READ:
            break
        kept.add(number)
    return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def _make_key(index: int, direction: StudyDirection) -> Any:
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    return lambda trial: (sign * trial.values[index], trial.number)
