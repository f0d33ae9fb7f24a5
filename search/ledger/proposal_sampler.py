"""Optuna sampler that draws the proposals of :mod:`search.ledger.proposals`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.config.search_space import SearchSpace
from search.ledger.proposals import PastTrial, Proposal, propose
from search.ledger.records import INFEASIBLE

__all__ = ["ProposalSampler"]

ORIGIN = "clinie:origin"
"""System attribute of a trial: how its configuration was proposed."""
FIXED = "fixed_params"
"""System attribute in which Optuna stores the values of a trial that was enqueued."""
_ENDED: WeakKeyDictionary[optuna.Study, dict[int, PastTrial]] = WeakKeyDictionary()
"""Ended trials of each study, which do not change any more, by number."""


class ProposalSampler(BaseSampler):
    """Sampler of one trial. All values come from one proposal, which is drawn when the first value is requested.

    Values that an enqueued trial fixes are part of its proposal, so that the others fit them.

    Args:
        space: The search space.
        seed: Seed of the trial's draw.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._proposal: Proposal | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: all values are drawn one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no value."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the proposal's value of a dimension."""
        if self._proposal is None:
            others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            fixed = trial.system_attrs.get(FIXED, {})
            self._proposal = propose(self._space, self._seed, _list_past(study, others), fixed)
            study._storage.set_trial_system_attr(trial._trial_id, ORIGIN, self._proposal.origin)
        return self._proposal.parameters[param_name]


def _list_past(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[PastTrial]:
    """Return the trials as proposals see them, without those that have not been drawn."""
    ended = _ENDED.setdefault(study, {})
    past = []
    for trial in trials:
        view = ended.get(trial.number) or _view(study, trial)
        if view is not None:
            past.append(view)
            if trial.state.is_finished():
                ended[trial.number] = view
    return past


def _view(study: optuna.Study, trial: FrozenTrial) -> PastTrial | None:
    """Return a trial as proposals see it; None if it has not been drawn."""
    if trial.state == TrialState.WAITING or not trial.params:
        return None
    values = _list_values(study, trial)
    score = max(values, default=None)
    if trial.state == TrialState.FAIL or trial.user_attrs.get(INFEASIBLE):
        score = -math.inf
    violation = max(trial.constraints.values(), default=0.0)
    return PastTrial(trial.params, len(values), score, trial.system_attrs.get(ORIGIN), violation)


def _list_values(study: optuna.Study, trial: FrozenTrial) -> Sequence[float]:
    """Return the first objective's finite values of all epochs, negated if lower is better."""
    sign = 1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1
    if len(study.directions) == 1:
        values = list(trial.intermediate_values.values())
    else:
        metric = study.user_attrs["objectives"][0]
        values = [v[metric] for k, v in trial.user_attrs.items() if k.startswith("epoch.") and metric in v]
    return [sign * value for value in values if math.isfinite(value)]
