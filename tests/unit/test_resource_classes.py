"""Resource classes: their keys and faults, the class of each trial, and the groups that are up for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.errors import InputError
from search.cluster.capacity import Capacity, NodeType, resolve_classes
from search.config.resources import Resources, sort_classes
from search.config.space_file import SpaceFile
from search.config.validation import validate_space
from search.pool.group_lifecycle import IDLE_SECONDS, GroupLifecycle, PoolState
from search.pool.pool import WorkerPool
from search.study.placement import Placement
from search.study.sizes import ConfigurationSize

Content = dict[str, Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]
SMALL = Resources(name="small", gpus_per_worker=0.25, memory_gib=24)
WHOLE = Resources(name="whole", gpus_per_worker=1, memory_gib=24)
NODE = Resources(name="node", gpus_per_worker=1, workers_per_trial=8, sharded=True, accelerator_type="H100")


def find_faults(content: Content, write_space: WriteSpace) -> list[str]:
    with pytest.raises(InputError) as caught:
        validate_space(str(write_space(content)))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("resources", "fault"),
    [
        (
            {"gpus_per_worker": 1, "price_per_hour": 2.5},
            "resources: price_per_hour 2.5 without a currency; set currency to three letters such as EUR",
        ),
        ([{"name": "a"}, {"name": "a"}], "resources: two classes are called a; give each a different name"),
        (
            [{"price_per_hour": 1, "currency": "EUR"}, {"name": "b", "price_per_hour": 1, "currency": "USD"}],
            "resources: prices in EUR and USD cannot be added; use one currency",
        ),
        (
            [{"name": "a", "memory_gib": 4}, {"name": "b"}],
            "resources.1.memory_gib: the memory of class b is unknown, but trials are assigned to classes by their"
            " memory; set it, or accelerator_type, or name a class in the entry of each backbone (backbones.NAME)",
        ),
        (
            {"sharded": True},
            "resources.sharded: a trial has one process, so there is nothing to shard;"
            " set resources.workers_per_trial to 2 or more, or remove the key",
        ),
        ([], "resources: Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_a_fault_of_a_class_is_one_line(
    space_content: Content, write_space: WriteSpace, resources: object, fault: str
) -> None:
    assert find_faults(space_content | {"resources": resources}, write_space) == [f"space.yaml: {fault}"]


def test_a_backbone_with_an_unknown_class_is_one_line(space_content: Content, write_space: WriteSpace) -> None:
    space_content["backbones"]["tiny"]["resources"] = "huge"
    fault = "space.yaml: backbones.tiny.resources: unknown resource class 'huge'; one of default"
    assert find_faults(space_content, write_space) == [fault]


def test_the_entry_of_a_backbone_may_hold_only_its_class(space_content: Content, write_space: WriteSpace) -> None:
    classes = [{"name": "a"}, {"name": "b"}]
    space_content["backbones"]["tiny"]["resources"] = "b"
    file = validate_space(str(write_space(space_content | {"resources": classes}))).file
    assert file.get_class_name("tiny") == "b"
    assert SpaceFile.model_validate(file.model_dump(mode="json")) == file
    assert file.find_class("tiny").name == "b"
    only = SpaceFile.model_validate({**file.model_dump(mode="json"), "backbones": {"org/model": {"resources": "a"}}})
    assert only.backbone("org/model", "", None).hub == "org/model"  # type: ignore[arg-type]  # no fault to receive


def test_a_class_that_no_node_can_hold_is_named() -> None:
    capacity = Capacity((NodeType({"CPU": 8.0, "GPU": 1.0}, 4),), is_final=True)
    with pytest.raises(InputError) as caught:
        resolve_classes([SMALL, WHOLE, NODE], capacity, "space.yaml")
    (problem,) = caught.value.problems
    assert str(problem).startswith(
        "space.yaml: resources.2: a trial of class node needs 8 x 1 CPU and 1 GPU of type H100; the cluster can provide"
    )


def test_a_class_runs_on_nodes_of_its_accelerator_type_only() -> None:
    typed = Resources(gpus_per_worker=1, accelerator_type="H100")
    other = NodeType({"CPU": 8.0, "GPU": 8.0, "accelerator_type:A100": 1.0}, 1)
    with pytest.raises(InputError):
        resolve_classes([typed], Capacity((other,), is_final=True))
    same = NodeType({"CPU": 8.0, "GPU": 8.0, "accelerator_type:H100": 1.0}, 1)
    assert resolve_classes([typed], Capacity((other, same), is_final=True)) == (typed,)


def make_placement(space_content: Content, classes: list[Resources], memory_mb: float, **entry: str) -> Placement:
    """Return the placement of trials that need an amount of memory in each process, less if they are sharded."""
    space_content["backbones"]["tiny"] |= entry
    file = SpaceFile.model_validate(space_content | {"resources": [own.model_dump() for own in classes]})

    def measure(config: TrialConfig, own: Resources) -> ConfigurationSize:
        needed = memory_mb / (own.workers_per_trial if own.sharded else 1)
        limit = 1024 * (own.known_memory_gib or 0) * own.gpu_share
        return ConfigurationSize(10, 10, needed, 8, needed <= limit)

    return Placement(file, measure)


@pytest.mark.parametrize(
    ("memory_mb", "names"),
    [
        (5000, ("small", "whole", "node")),
        (9000, ("whole", "node")),
        (90_000, ("node",)),
        (9_000_000, ("node",)),
    ],
)
def test_a_trial_goes_to_the_smallest_class_whose_memory_holds_it(
    space_content: Content, make_config: Callable[..., TrialConfig], memory_mb: float, names: tuple[str, ...]
) -> None:
    placement = make_placement(space_content, [NODE, SMALL, WHOLE], memory_mb)
    assert placement.list_names(make_config()) == names


def test_a_trial_goes_to_the_class_of_its_backbone(
    space_content: Content, make_config: Callable[..., TrialConfig]
) -> None:
    placement = make_placement(space_content, [SMALL, WHOLE, NODE], 1, resources="whole")
    assert placement.list_names(make_config()) == ("whole", "node")


def test_a_method_that_cannot_be_sharded_goes_to_no_sharded_class(
    space_content: Content, make_config: Callable[..., TrialConfig]
) -> None:
    config = make_config(finetuning=ComponentChoice(name="adalora", parameters={"learning_rate": 1e-3}))
    assert make_placement(space_content, [SMALL, WHOLE, NODE], 90_000).list_names(config) == ("whole",)
    assert make_placement(space_content, [SMALL, WHOLE, NODE], 1, resources="node").list_names(config) == ("whole",)


def test_classes_are_ordered_by_gpus_and_memory() -> None:
    cpu = Resources(name="cpu", cpus_per_worker=16)
    large_cpu = Resources(name="large", cpus_per_worker=2, memory_gib=64)
    ordered = sort_classes([NODE, WHOLE, large_cpu, SMALL, cpu])
    assert [own.name for own in ordered] == ["cpu", "large", "small", "whole", "node"]


def test_groups_of_a_class_start_for_its_jobs_and_end_when_it_has_none() -> None:
    groups = GroupLifecycle(["a", "a", "b"], unfinished=10)
    jobs = {"a": 1}
    assert [groups.may_start(group, jobs) for group in range(3)] == [True, True, False]
    for group in (0, 2):
        groups.start(group)
        groups.join(group)
    assert not groups.may_start(1, jobs)
    assert not groups.is_idle(0, jobs, now=0)
    assert not groups.is_idle(2, jobs, now=0)
    assert not groups.is_idle(2, {"a": 1, "b": 1}, now=IDLE_SECONDS)  # a new job ends the wait
    assert not groups.is_idle(2, jobs, now=IDLE_SECONDS + 1)
    assert groups.is_idle(2, jobs, now=2 * IDLE_SECONDS + 1)


def test_idle_groups_of_several_classes_end_at_once_if_each_trial_has_a_job() -> None:
    groups = GroupLifecycle(["a", "b"], unfinished=1)
    for group in range(2):
        groups.join(group)
    assert groups.is_idle(1, {"a": 1}, now=0)
    assert not groups.is_idle(0, {"a": 1}, now=0)


def test_more_trials_are_drawn_while_groups_of_another_class_are_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capacity = Capacity((NodeType({"CPU": 8.0}, 1),), is_final=True)
    monkeypatch.setattr("search.pool.pool.read_capacity", lambda: capacity)
    classes = [Resources(name=name, concurrent_trials=4) for name in ("a", "b")]
    pool = WorkerPool(classes, lambda device: lambda job, report: None, Path())
    assert pool.groups == 8
    assert [pool.may_start_trial(running) for running in (0, 1, 2)] == [True, True, False]
    pool._state = PoolState({"a": 4, "b": 4}, {"a": 3, "b": 0}, {"a": 0, "b": 1}, idle=1, waiting=2)
    assert [pool.may_start_trial(running) for running in (6, 7)] == [True, False]
    assert pool.describe_wait() == "waiting for 1 CPU, 3 of 8 groups up"
