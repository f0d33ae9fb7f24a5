"""Contract of samplers: every row of ``SAMPLERS`` proposes reproducible configurations of the space."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from clinie_core.config import TrialConfig
from search.config.algorithms import SAMPLERS
from search.config.domains import Domain, Fixed, OneOf, Range
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space
from search.ledger.ledger import Ledger

TRIALS = 24
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONTENT: dict[str, Any] = {
    "version": 1,
    "study": "contract",
    "corpus": {"path": "corpus"},
    "algorithm": {"startup_trials": 4, "seed": 7},
    "backbones": {
        "reader": {"scratch": {"model_type": "bert", **TINY}, "allow_frozen": True},
        "writer": {"scratch": {"model_type": "llama", **TINY}, "allow_frozen": True},
    },
    "space": {
        "backbone": {"choose": ["reader", "writer"]},
        "formulation": {
            "choose": {
                "token_classification": {"head": {"choose": ["linear", "crf"]}},
                "span_pointer": {},
                "generation": {},
            }
        },
        "finetuning": {
            "choose": {
                "full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}},
                "lora": {"rank": {"log_int": [2, 16]}, "learning_rate": {"log": [1.0e-4, 1.0e-2]}},
                "prefix_tuning": {},
            }
        },
        "batch_size": {"choose": [4, 8, 16]},
        "weight_decay": {"uniform": [0.0, 0.1]},
        "micro_batch": {"int": [1, 4]},
        "window_tokens": 96,
    },
}
OBJECTIVES = {
    "one objective": [{"maximize": "strict_f1"}],
    "two objectives": [{"maximize": "strict_f1"}, {"minimize": "peak_memory_mb"}],
}


def make_space(sampler: str, objectives: list[dict[str, str]], **algorithm: Any) -> SearchSpace:
    content = {
        **CONTENT,
        "objective": objectives,
        "algorithm": {**CONTENT["algorithm"], "sampler": sampler, **algorithm},
    }
    return build_space(SpaceFile.model_validate(content), "contract.yaml")


def create_ledger(space: SearchSpace, storage: BaseStorage) -> Ledger:
    return Ledger.create(storage, "contract", space.file.objective, space.file.algorithm, {})


def finish_trial(ledger: Ledger, number: int, config: TrialConfig) -> None:
    """End a trial in one of the ways in which trials end; the score depends on the configuration."""
    score = 1 / config.batch_size + config.weight_decay
    if number % 7 == 3:
        ledger.end(number, "infeasible", "out of memory")
        return
    if number % 7 == 5:
        ledger.end(number, "failed", "ValueError")
        return
    ledger.report(number, 1, {"strict_f1": score, "peak_memory_mb": 100.0 * config.batch_size})
    ledger.end(number, "pruned" if number % 7 == 6 else "complete")


def propose(space: SearchSpace, ledger: Ledger, trials: int) -> list[TrialConfig]:
    configs = []
    for _ in range(trials):
        number, config = ledger.ask(space)
        finish_trial(ledger, number, config)
        configs.append(config)
    return configs


def describe_draw(config: TrialConfig) -> str:
    """Return the drawn values of a configuration; its seed is that of the study."""
    return config.model_copy(update={"seed": 0}).digest()


def is_in_domain(domain: Domain, value: Any) -> bool:
    match domain:
        case Fixed():
            return bool(value == domain.value)
        case OneOf():
            return value in domain.choices
        case Range():
            return domain.low <= value <= domain.high and (not domain.integer or isinstance(value, int))


CASES = [
    pytest.param(sampler, objectives, id=f"{sampler}-{name}")
    for sampler in SAMPLERS
    for name, objectives in OBJECTIVES.items()
    if sampler != "cmaes" or (len(objectives) == 1 and find_spec("cmaes") is not None)
]


@pytest.mark.parametrize(("sampler", "objectives"), CASES)
class TestSampler:
    def test_proposals_lie_in_the_space(self, sampler: str, objectives: list[dict[str, str]]) -> None:
        space = make_space(sampler, objectives)
        domains = dict(space.dimensions())
        ledger = create_ledger(space, InMemoryStorage())
        configs = propose(space, ledger, TRIALS)
        assert len({config.digest() for config in configs}) > TRIALS // 2
        for record in ledger.records():
            assert record.parameters
            for path, value in record.parameters.items():
                assert is_in_domain(domains[path], value), (path, value)

    def test_conditional_dimensions_have_values_only_in_their_branch(
        self, sampler: str, objectives: list[dict[str, str]]
    ) -> None:
        space = make_space(sampler, objectives)
        ledger = create_ledger(space, InMemoryStorage())
        configs = propose(space, ledger, TRIALS)
        assert {config.finetuning.name for config in configs} >= {"full", "lora"}
        for record, config in zip(ledger.records(), configs, strict=True):
            chosen = {f"formulation.{config.formulation.name}", f"finetuning.{config.finetuning.name}"}
            architectures = {"formulation.encoder", "formulation.decoder", "finetuning.encoder", "finetuning.decoder"}
            branches = {path.rpartition(".")[0] for path in record.parameters if path.count(".") == 2}
            assert branches <= chosen
            assert ("finetuning.lora.rank" in record.parameters) == (config.finetuning.name == "lora")
            kind = "encoder" if config.backbone.name == "reader" else "decoder"
            assert {p.rpartition(".")[2] for p in architectures & set(record.parameters)} <= {kind}

    def test_equal_seeds_propose_equal_configurations(self, sampler: str, objectives: list[dict[str, str]]) -> None:
        space = make_space(sampler, objectives)
        first, second = (propose(space, create_ledger(space, InMemoryStorage()), TRIALS) for _ in range(2))
        assert first == second
        other = make_space(sampler, objectives, seed=8)
        others = propose(other, create_ledger(other, InMemoryStorage()), TRIALS)
        assert not {describe_draw(config) for config in others} & {describe_draw(config) for config in first}

    def test_a_reopened_study_continues_as_an_uninterrupted_one(
        self, sampler: str, objectives: list[dict[str, str]]
    ) -> None:
        space, storage = make_space(sampler, objectives), InMemoryStorage()
        uninterrupted = propose(space, create_ledger(space, InMemoryStorage()), TRIALS)
        resumed = propose(space, create_ledger(space, storage), TRIALS // 2)
        for _ in range(TRIALS - TRIALS // 2):
            resumed += propose(space, Ledger.open(storage, "contract", space.file.algorithm), 1)
        assert resumed == uninterrupted

    def test_points_to_evaluate_are_proposed_first(self, sampler: str, objectives: list[dict[str, str]]) -> None:
        points = [{"backbone": "reader", "finetuning.encoder": "lora", "finetuning.lora.rank": 5}, {"batch_size": 16}]
        space = make_space(sampler, objectives, points_to_evaluate=points)
        first, second = propose(space, create_ledger(space, InMemoryStorage()), 2)
        assert (first.backbone.name, first.finetuning.name) == ("reader", "lora")
        assert first.finetuning.parameters["rank"] == 5
        assert second.batch_size == 16
