"""Fractions of a GPU for classes with ``gpus_per_worker: auto``: the smallest into which each trial fits."""

from __future__ import annotations

from collections.abc import Sequence

from clinie_core.config import TrialConfig
from search.cluster.capacity import Capacity
from search.cluster.devices import CONTEXT_BYTES, resolve_resources
from search.config.largest import list_largest_configs, list_pairs
from search.config.resources import Resources
from search.config.search_space import SearchSpace
from search.study.placement import Placement
from search.study.sizes import ConfigurationSize, SizeEstimator, find_hardware

__all__ = ["choose_gpu_shares"]

TRIALS_PER_GPU = (8, 4, 2)
"""Numbers of trials that may share a GPU, the largest first."""
MIB = 2**20


def choose_gpu_shares(space: SearchSpace, estimator: SizeEstimator, capacity: Capacity) -> tuple[Resources, ...]:
    """Return the resource classes of a space with numbers instead of ``auto``.

    A class gets a fraction of a GPU if each of its largest configurations fits into it with its whole batch, and if
    the cores of a node suffice for that many trials.

    Args:
        space: The space.
        estimator: Estimates the memory of configurations.
        capacity: The cluster.
    """
    classes = space.file.resources
    gpus = capacity.count_gpus()
    if not gpus or all(own.gpus_per_worker != "auto" for own in classes):
        return tuple(resolve_resources(own, gpus) for own in classes)
    estimator = estimator.limit_time()
    placement = Placement(space.file, estimator.measure)
    configs = [config for pair in list_pairs(space) for config in list_largest_configs(space, *pair)]
    chosen = [placement.list_names(config)[0] for config in configs]
    resolved = []
    for own in classes:
        whole = resolve_resources(own, gpus)
        if own.gpus_per_worker == "auto" and own.workers_per_trial == 1:
            of_class = [config for config, name in zip(configs, chosen, strict=True) if name == own.name]
            whole = _share(whole, of_class, estimator, capacity)
        resolved.append(whole)
    return tuple(resolved)


def _share(whole: Resources, configs: Sequence[TrialConfig], estimator: SizeEstimator, capacity: Capacity) -> Resources:
    """Return a class with the smallest fraction that suffices for configurations."""
    sizes = [estimator.measure(config, whole) for config in configs]
    if not sizes or not all(map(_is_certain, sizes, configs)):
        return whole
    needed = max(size.memory_mb for size in sizes)
    cores = max(n.resources.get("CPU", 0) / n.resources["GPU"] for n in capacity.node_types if n.resources.get("GPU"))
    for trials in TRIALS_PER_GPU:
        part = whole.model_copy(update={"gpus_per_worker": 1 / trials})
        memory = find_hardware(part).memory_mb
        if memory is not None and needed <= memory - CONTEXT_BYTES / MIB and cores >= trials * whole.cpus_per_worker:
            return part
    return whole


def _is_certain(size: ConfigurationSize, config: TrialConfig) -> bool:
    """Return whether the training step of a whole batch was simulated, and fits."""
    batch = config.micro_batch or config.batch_size
    return size.is_simulated and not size.note and size.fits and (size.micro_batch or 0) >= batch
