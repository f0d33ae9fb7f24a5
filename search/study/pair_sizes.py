"""Sizes of the largest trials for each backbone and fine-tuning method, with their resource classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clinie_core.config import TrialConfig
from search.cluster.capacity import Capacity, count_groups
from search.config.largest import list_largest_configs, list_pairs
from search.config.resources import Resources
from search.config.search_space import SearchSpace
from search.study.placement import Placement
from search.study.sizes import ConfigurationSize

__all__ = ["PairSize", "find_host_memory", "measure_pairs"]


@dataclass(frozen=True)
class PairSize:
    """Size of the largest trials with one backbone and one fine-tuning method.

    Args:
        backbone: Name of the backbone.
        method: Name of the fine-tuning method.
        config: The configuration whose size this is.
        resources: The class of its trial.
        size: Its size there.
        at_once: Number of such trials that can run at once; None if the cluster's nodes are unknown.
    """

    backbone: str
    method: str
    config: TrialConfig
    resources: Resources
    size: ConfigurationSize
    at_once: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the size for ``--json``."""
        return {
            "backbone": self.backbone,
            "method": self.method,
            "total_parameters": self.size.parameters,
            "trainable_parameters": self.size.trainable,
            "memory_mb": math.ceil(self.size.memory_mb),
            "fits": self.size.fits,
            "simulated": self.size.is_simulated,
            "resources": self.resources.name,
            "at_once": self.at_once,
        }


def measure_pairs(space: SearchSpace, placement: Placement, capacity: Capacity | None) -> list[PairSize]:
    """Return the size of the largest trials for each backbone and fine-tuning method of a space.

    Args:
        space: The space.
        placement: Chooses the classes of trials.
        capacity: The cluster; None if it is unknown.
    """
    order = [own.name for own in placement.classes]
    rows = []
    for backbone, method in list_pairs(space):
        found = [(config, *placement.measure(config)) for config in list_largest_configs(space, backbone, method)]
        config, own, size = max(found, key=lambda row: (order.index(row[1].name), row[2].memory_mb))
        rows.append(PairSize(backbone, method, config, own, size, _count_at_once(own, capacity)))
    return rows


def _count_at_once(own: Resources, capacity: Capacity | None) -> int | None:
    """Return how many trials of a class can run at once; None if it is unknown."""
    if capacity is None or not capacity.is_final:
        return own.concurrent_trials
    groups = count_groups(own, capacity)
    return groups if own.concurrent_trials is None else min(groups, own.concurrent_trials)


def find_host_memory(rows: Sequence[PairSize], own: Resources) -> float:
    """Return the main memory in MiB that the models of a class's trials need, without Python and libraries.

    A worker on a CPU needs the estimated memory. Workers on GPUs share the mapped weights, in float32 at most.

    Args:
        rows: Sizes of a space's trials; all of them count for a class to which no trial is assigned.
        own: The class.
    """
    sizes = [row.size for row in rows if row.resources.name == own.name] or [row.size for row in rows]
    if own.gpu_share:
        return max((4 * size.parameters / 2**20 for size in sizes), default=0.0)
    return max((size.memory_mb for size in sizes), default=0.0)
