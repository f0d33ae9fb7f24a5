"""Classes that follow from the estimated memory: in a plan, and as fractions of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from search.cluster.capacity import Capacity, NodeType
from search.config.largest import list_largest_configs, list_pairs
from search.config.validation import validate_space
from search.study.gpu_shares import choose_gpu_shares
from search.study.plan import plan_search, read_schema
from search.study.sizes import SizeEstimator

Content = dict[str, Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]
pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIE_CACHE", str(tmp_path / "cache"))


def test_a_plan_shows_the_class_of_each_backbone_and_method(space_content: Content, write_space: WriteSpace) -> None:
    classes = [
        {"name": "whole", "gpus_per_worker": 1, "memory_gib": 16, "concurrent_trials": 2},
        {"name": "sixteenth", "gpus_per_worker": 0.0625, "memory_gib": 1},
    ]
    tiny = space_content["backbones"]["tiny"]
    wide = {**tiny, "scratch": {**tiny["scratch"], "hidden_size": 512, "intermediate_size": 2048}}
    backbones = {"tiny": tiny, "wide": wide}
    methods = {"full": {"learning_rate": 1e-3}, "ia3": {}}
    changes = {"backbone": {"choose": ["tiny", "wide"]}, "formulation": "token_classification"}
    space = {**space_content["space"], **changes, "finetuning": {"choose": methods}}
    file = write_space({**space_content, "resources": classes, "backbones": backbones, "space": space})
    cluster = Capacity((NodeType({"CPU": 64.0, "GPU": 2.0}, 3),), is_final=True)
    planned = plan_search(validate_space(str(file)), 1, cluster=cluster)
    found = {(pair.backbone, pair.method): (pair.resources.name, pair.at_once) for pair in planned.pairs}
    assert len(found) == 4
    assert found["tiny", "ia3"] == ("sixteenth", 96)
    assert found["wide", "full"] == ("whole", 2)
    rows = {(row["backbone"], row["method"]): row for row in planned.as_json()["sizes"]}
    assert rows["wide", "full"]["trainable_parameters"] == rows["wide", "full"]["total_parameters"]
    assert all(row["fits"] for row in rows.values())


def test_the_largest_configurations_have_the_largest_numbers(space_content: Content, write_space: WriteSpace) -> None:
    space = validate_space(str(write_space(space_content))).space
    assert list(list_pairs(space)) == [("tiny", "full"), ("tiny", "lora"), ("tiny", "ia3")]
    first, last = list_largest_configs(space, "tiny", "lora")
    assert (first.batch_size, first.finetuning.parameters["rank"]) == (16, 8)
    assert [config.formulation.parameters["head"] for config in (first, last)] == ["linear", "crf"]


@pytest.mark.parametrize(
    ("cores", "memory_gib", "share"),
    [(16, 80, 0.125), (4, 80, 0.25), (16, 0.6, 1.0), (16, None, 1.0)],
    ids=["eight trials", "few cores", "little memory", "unknown memory"],
)
def test_auto_is_the_smallest_fraction_of_a_gpu_that_holds_all_trials(
    space_content: Content, write_space: WriteSpace, cores: int, memory_gib: float | None, share: float
) -> None:
    resources = {"gpus_per_worker": "auto", "memory_gib": memory_gib}
    validated = validate_space(str(write_space({**space_content, "resources": resources})))
    estimator = SizeEstimator(validated.space, read_schema(validated)[0], validated.corpus, ())
    cluster = Capacity((NodeType({"CPU": cores, "GPU": 1.0}, 1),), is_final=True)
    (own,) = choose_gpu_shares(validated.space, estimator, cluster)
    assert own.gpus_per_worker == share
    (none,) = choose_gpu_shares(validated.space, estimator, Capacity((NodeType({"CPU": 4.0}, 1),), is_final=True))
    assert none.gpus_per_worker == 0
