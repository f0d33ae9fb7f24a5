"""Sizes of the worker pods of a Kubernetes manifest, from the estimate of the space's trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clinie_core.errors import InputError, fail
from search.cluster.capacity import Capacity, NodeType
from search.cluster.devices import resolve_resources
from search.config.resources import Resources
from search.config.space_file import SpaceFile
from search.config.validation import validate_space
from search.study.gpu_shares import choose_gpu_shares
from search.study.pair_sizes import find_host_memory, measure_pairs
from search.study.placement import Placement
from search.study.plan import read_schema
from search.study.sizes import SizeEstimator

__all__ = ["PodSizes", "estimate_pods"]

SECONDS = 300.0
"""Time after which no further simulation starts."""
ANY_NODE = Capacity((NodeType({"CPU": 1e6, "GPU": 1.0}, 1),), is_final=False)
"""A cluster whose nodes have as many cores as a trial needs, because the manifest sets them."""


@dataclass(frozen=True)
class PodSizes:
    """Resource classes with their memory.

    Args:
        classes: The resource classes, with numbers of GPUs.
        memory_mb: Main memory of the model of a worker process in MiB, by resource class; empty if it is unknown. The
            workers of a GPU class share it.
        note: Why the memory is unknown; empty if it is known.
    """

    classes: tuple[Resources, ...]
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def estimate_pods(name: str, overrides: Iterable[str], file: SpaceFile) -> PodSizes:
    """Estimate the memory of a space's trials on this machine, where its corpus and backbones may be missing.

    Args:
        name: Path of the space file, or the name of a shipped space.
        overrides: Changes to the file.
        file: The space file with these changes.

    Raises:
        InputError: If a class has ``gpus_per_worker: auto`` and the memory of its GPU is not stated.
    """
    for number, own in enumerate(file.resources):
        if own.gpus_per_worker == "auto" and own.known_memory_gib is None:
            key = "resources" if len(file.resources) == 1 else f"resources.{number}"
            found = "auto is resolved on the cluster, which this manifest creates"
            fail(f"{key}.gpus_per_worker", found, allowed="a number from 0 to 1", remedy=f"or set {key}.memory_gib")
    try:
        validated = validate_space(name, overrides, plan_only=True)
    except InputError as error:  # backbones may exist on the cluster only
        found = f"the memory of a trial is unknown, because the space cannot be planned here ({error.problems[0]})"
        return PodSizes(tuple(resolve_resources(own, 1) for own in file.resources), note=found)
    schema, _ = read_schema(validated)
    estimator = SizeEstimator(validated.space, schema, validated.corpus, validated.stand_ins).limit_time(SECONDS)
    classes = choose_gpu_shares(validated.space, estimator, ANY_NODE)
    placement = Placement(file.model_copy(update={"resources": classes}), estimator.measure)
    rows = measure_pairs(validated.space, placement, None)
    return PodSizes(classes, {own.name: find_host_memory(rows, own) for own in classes})
