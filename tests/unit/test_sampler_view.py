"""The trials that samplers see: failed and stopped ones, and a bounded number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.ledger.sampler_view import MAX_TRIALS_READ, TrialView

DOMAIN: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}


class Reader(RandomSampler):
    """Sampler that keeps the trials that it has read."""

    trials: Sequence[FrozenTrial] = ()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        self.trials = study.get_trials(deepcopy=False)
        return super().infer_relative_search_space(study, trial)


def make_study(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("objectives", ["strict_f1"])
    for trial in trials:
        study.add_trial(trial)
    return study


def make_trial(x: float, state: TrialState, *scores: float) -> FrozenTrial:
    attributes: dict[str, Any] = {f"epoch.{i}": {"strict_f1": s} for i, s in enumerate(scores, start=1)}
    value = max(scores) if state == TrialState.COMPLETE else None
    attributes["config"] = {"selection": "strict_f1"}
    return create_trial(params={"x": x}, distributions=DOMAIN, state=state, value=value, user_attrs=attributes)


def read(study: optuna.Study, *, complete_only: bool, bounded: bool = True) -> Sequence[FrozenTrial]:
    reader = Reader(seed=0)
    study.sampler = TrialView(reader, complete_only=complete_only, bounded=bounded)
    study.ask(DOMAIN)
    return reader.trials


STUDY = (
    make_trial(0.1, TrialState.COMPLETE, 0.5, 0.7),
    make_trial(0.2, TrialState.COMPLETE, 0.3),
    make_trial(0.3, TrialState.PRUNED, 0.1, math.nan, 0.2),
    make_trial(0.4, TrialState.FAIL),
)


def test_a_failed_trial_is_infeasible_for_a_sampler_that_reads_stopped_trials() -> None:
    seen = read(make_study(*STUDY), complete_only=False)
    states = [trial.state for trial in seen[:4]]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [sum(trial.constraints.values()) for trial in seen[:4]] == [0, 0, 0, 1]


def test_a_sampler_of_complete_trials_sees_stopped_and_failed_ones() -> None:
    study = make_study(*STUDY)
    seen = read(study, complete_only=True)
    assert [trial.values for trial in seen[:4]] == [[0.7], [0.3], [0.2], [0.3]]
    assert {trial.state for trial in seen[:4]} == {TrialState.COMPLETE}
    assert [sum(trial.constraints.values()) for trial in seen[:4]] == [0, 0, 0, 1]
    assert study.trials[2].state == TrialState.PRUNED, "the ledger is unchanged"


def test_a_bounded_sampler_reads_the_best_and_the_latest_trials() -> None:
    trials = [make_trial(i / 2000, TrialState.COMPLETE, i % 1000 / 1000) for i in range(1500)]
    study = make_study(*trials)
    ended = [trial for trial in read(study, complete_only=False) if trial.state.is_finished()]
    assert len(ended) == MAX_TRIALS_READ
    assert {trial.number for trial in ended} >= {999, 998, 997, *range(1400, 1500)}
    assert len(read(study, complete_only=False, bounded=False)) == 1500 + 2


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_avoids_configurations_that_fail() -> None:
    failing = [make_trial(x / 100, TrialState.FAIL) for x in range(50, 100)]
    sound = [make_trial(x / 100, TrialState.COMPLETE, 0.5) for x in range(0, 50, 2)]
    study = make_study(*failing, *sound)
    drawn = []
    for seed in range(40):
        study.sampler = TrialView(TPESampler(seed=seed, multivariate=True), complete_only=False, bounded=True)
        drawn.append(study.ask(DOMAIN).params["x"])
    assert sum(x < 0.5 for x in drawn) > 30
