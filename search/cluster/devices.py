"""Devices of a Ray process, and the GPUs of a cluster.

Ray does not hide GPUs from a process that requested none, so a process must not use CUDA because it is available.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clinie_core.errors import Problem, fail
from search.config.resources import Resources

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONTEXT_BYTES",
    "describe_place",
    "find_unused_gpus",
    "get_cluster_gpus",
    "get_granted_device",
    "has_gpu_driver",
    "is_usable",
    "limit_memory",
    "resolve_resources",
]

VISIBLE = "CUDA_VISIBLE_DEVICES"
CONTEXT_BYTES = 500 * 2**20
"""Memory of a process's CUDA context, which is not part of torch's limit."""


def _get_granted_gpus() -> list[str]:
    """Return the ids of the GPUs that Ray has granted to this process: indices, UUIDs or MIG ids."""
    import ray

    return [str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def get_granted_device() -> torch.device:
    """Return the device that Ray has granted to this process, without initializing CUDA.

    Returns:
        The CPU if this process was granted no GPU; otherwise its first GPU, counted within ``CUDA_VISIBLE_DEVICES``.

    Raises:
        InputError: If the granted GPU is not among the visible ones.
    """
    import torch

    granted = _get_granted_gpus()
    if not granted:
        return torch.device("cpu")
    visible = os.environ.get(VISIBLE)
    if visible is None:  # Ray does not set it if a variable says so; indices count all GPUs then
        return torch.device("cuda", int(granted[0]))
    names = visible.split(",")
    if granted[0] not in names:
        fail(VISIBLE, f"found {visible!r}", allowed=f"a list with the granted GPU {granted[0]}", remedy="do not set it")
    return torch.device("cuda", names.index(granted[0]))


def describe_place() -> str:
    """Return the node and the granted GPU of this process, for messages."""
    import ray.util

    gpus = _get_granted_gpus()
    return f"node {ray.util.get_node_ip_address()}" + (f", GPU {', '.join(gpus)}" if gpus else "")


def is_usable(device: torch.device) -> bool:
    """Return whether a device can still be used after an error, and wait for its pending work.

    After a device-side assertion, an illegal memory access or a hardware error, every later CUDA call of the process
    fails.
    """
    import torch

    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:  # torch.AcceleratorError is one
        return False
    return True


def limit_memory(device: torch.device, share: float) -> None:
    """Limit a process to its share of a GPU's memory.

    Args:
        device: Device of the process; no-op for a CPU.
        share: GPUs of the process; no-op for a whole one.
    """
    import torch

    # A granted GPU that CUDA cannot use is reported where the model moves to it.
    if device.type != "cuda" or not 0 < share < 1 or not torch.cuda.is_available():
        return
    context = CONTEXT_BYTES / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(max(share / 2, share - context), device)


def has_gpu_driver() -> bool:
    """Return whether this machine has a GPU's device file; without one, torch need not be asked."""
    return any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg", "kfd"))


def get_cluster_gpus() -> float:
    """Return the number of GPUs of the cluster to which this process is connected."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def find_unused_gpus(classes: Sequence[Resources], gpus: float, where: str) -> list[Problem]:
    """Return a warning if a space uses none of the available GPUs.

    Args:
        classes: The resource classes of the space.
        gpus: Number of available GPUs.
        where: Name of the space file.
    """
    if not gpus or any(own.gpus_per_worker for own in classes):
        return []
    found = f"{gpus:g} GPU{'s' if gpus > 1 else ''} available, this space uses none"
    return [Problem(f"{where}: resources.gpus_per_worker", found, remedy="set it to 1, a fraction, or auto")]


def resolve_resources(resources: Resources, gpus: float) -> Resources:
    """Replace ``gpus_per_worker: auto`` by a number.

    Args:
        resources: The resources of a space.
        gpus: Number of available GPUs.

    Returns:
        The resources with one GPU per worker if the cluster has GPUs, otherwise with none.
    """
    if resources.gpus_per_worker != "auto":
        return resources
    return resources.model_copy(update={"gpus_per_worker": 1.0 if gpus else 0.0})
