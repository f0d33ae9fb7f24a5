"""Capacity of a cluster: nodes that are present, and nodes that an autoscaler may start."""

from __future__ import annotations

import pytest

from search.cluster.capacity import Capacity, NodeType, count_groups, find_impossible_request
from search.config.resources import Resources

HEAD = NodeType({"CPU": 0.0}, 1)
SMALL = NodeType({"CPU": 8.0, "GPU": 1.0}, 4, on_demand=True)
LARGE = NodeType({"CPU": 96.0, "GPU": 8.0}, 2, on_demand=True)


@pytest.mark.parametrize(
    ("resources", "limit", "groups"),
    [
        (Resources(gpus_per_worker=1), None, 20),
        (Resources(gpus_per_worker=1), 3, 17),  # two large nodes and a small one
        (Resources(gpus_per_worker=1, workers_per_trial=8), 1, 1),
        (Resources(gpus_per_worker=0.25, cpus_per_worker=4), 1, 24),  # the CPUs of the large node suffice for 24
        (Resources(cpus_per_worker=16), None, 12),
    ],
)
def test_the_groups_of_all_node_types_count_within_the_limit_of_nodes(
    resources: Resources, limit: int | None, groups: int
) -> None:
    capacity = Capacity((HEAD, SMALL, LARGE), is_final=True, max_on_demand=limit)
    assert count_groups(resources, capacity) == groups


def test_a_request_is_impossible_only_if_all_node_types_are_known() -> None:
    resources = Resources(gpus_per_worker=1, cpus_per_worker=16)
    problem = find_impossible_request(resources, Capacity((HEAD, SMALL), is_final=True, max_on_demand=2), "resources")
    assert str(problem) == (
        "resources: a trial needs 1 x 16 CPU and 1 GPU; the cluster can provide at most 16 CPU and 2 GPU, on one node"
        " 8 CPU and 1 GPU; lower workers_per_trial, cpus_per_worker or gpus_per_worker"
    )
    assert find_impossible_request(resources, Capacity((HEAD, SMALL), is_final=False), "resources") is None
    assert find_impossible_request(resources, Capacity((LARGE,), is_final=True), "resources") is None
