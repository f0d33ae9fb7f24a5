"""The nodes that a cluster can provide: those that are present, and those that its autoscaler may start.

Ray's autoscaler does not publish its configuration. It is read from the file that the autoscaler's process on this
machine was started with, which a driver on the head node finds. Elsewhere, and on Kubernetes, it is unknown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clinie_core.errors import InputError, Problem
from search.cluster.devices import find_unused_gpus, has_gpu_driver, resolve_resources
from search.config.resources import Resources
from search.trials.job import DEFAULT_CLASS

__all__ = [
    "HEAD_RESOURCE",
    "Capacity",
    "NodeType",
    "check_cluster",
    "count_groups",
    "describe_class",
    "describe_request",
    "find_capacity",
    "find_impossible_request",
    "read_available_capacity",
    "read_capacity",
    "resolve_classes",
]

CONFIG_OPTION = "--autoscaling-config="
ADDRESS_OPTION = "--gcs-address="
HEAD_RESOURCE = "node:__internal_head__"
"""Resource that only the head node has."""
DEFAULT_MAX_WORKERS = 2
"""Number of nodes that Ray's autoscaler starts at most if its configuration does not say."""
SLACK = 1e-6


@dataclass(frozen=True)
class NodeType:
    """Nodes with the same resources.

    Args:
        resources: Resources of one node, such as ``CPU`` and ``GPU``.
        count: Maximum number of such nodes.
        on_demand: Whether an autoscaler starts them.
    """

    resources: Mapping[str, float]
    count: int
    on_demand: bool = False


@dataclass(frozen=True)
class Capacity:
    """Resources that a cluster can provide.

    Args:
        node_types: The types of its nodes.
        is_final: Whether these are all; False if there may be an autoscaler whose configuration is unknown.
        max_on_demand: Maximum number of nodes that the autoscaler starts, of all types together; None for no limit.
    """

    node_types: tuple[NodeType, ...]
    is_final: bool
    max_on_demand: int | None = None

    def sum_largest(self, measure: Callable[[Mapping[str, float]], float]) -> float:
        """Return the largest sum of a measure over all nodes that can exist at once.

        Args:
            measure: Function of the resources of a node.
        """
        left = math.inf if self.max_on_demand is None else self.max_on_demand
        total = 0.0
        for node in sorted(self.node_types, key=lambda node: measure(node.resources), reverse=True):
            count = min(node.count, left) if node.on_demand else node.count
            total += count * measure(node.resources)
            left -= count if node.on_demand else 0
        return total

    def count_gpus(self) -> float:
        """Return the largest number of GPUs."""
        return self.sum_largest(lambda resources: resources.get("GPU", 0.0))

    def describe(self) -> str:
        """Return the total and the largest node, for messages."""

        def describe_amounts(get: Callable[[str], float]) -> str:
            return f"{get('CPU'):g} CPU and {get('GPU'):g} GPU"

        largest = max((node.resources for node in self.node_types), key=_sort_by_gpus, default={})
        total = describe_amounts(lambda name: self.sum_largest(lambda resources: resources.get(name, 0.0)))
        return f"at most {total}, on one node {describe_amounts(lambda name: largest.get(name, 0.0))}"


def _sort_by_gpus(resources: Mapping[str, float]) -> tuple[float, float]:
    return resources.get("GPU", 0.0), resources.get("CPU", 0.0)


def read_capacity() -> Capacity:
    """Return the capacity of the cluster to which this process is connected."""
    import ray

    present = [NodeType(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    address = ray.get_runtime_context().gcs_address
    configured = _find_autoscaler_config(address)
    if configured is not None:
        limit = int(configured.get("max_workers", DEFAULT_MAX_WORKERS))
        return Capacity(tuple(_read_node_types(configured, present, limit)), is_final=True, max_on_demand=limit)
    # A local Ray has no autoscaler, nor has a cluster whose autoscaler's process only observes.
    is_final = not os.environ.get("RAY_ADDRESS") or bool(_list_autoscaler_commands(address))
    return Capacity(tuple(present), is_final)


def read_available_capacity(folder: Path) -> Capacity:
    """Return the capacity that a search would have: of this machine, or of the cluster that ``RAY_ADDRESS`` names.

    That of this machine is determined without Ray.

    Args:
        folder: Working folder while connecting to a cluster.

    Raises:
        ConnectionError: If the cluster does not answer.
    """
    if not os.environ.get("RAY_ADDRESS"):
        gpus = 0
        if has_gpu_driver():
            import torch

            gpus = torch.cuda.device_count()  # asks NVIDIA's management library, which initializes no CUDA
        return Capacity((NodeType({"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}, 1),), is_final=True)
    from search.cluster.session import ray_session

    with ray_session(folder):
        return read_capacity()


def find_capacity(folder: Path) -> tuple[Capacity | None, list[Problem]]:
    """Return the capacity of :func:`read_available_capacity`, or None and a warning if the cluster does not answer."""
    try:
        return read_available_capacity(folder), []
    except ConnectionError:
        found = f"no cluster answers at {os.environ['RAY_ADDRESS']}, so its nodes are unknown"
        return None, [Problem("RAY_ADDRESS", found, remedy="start the cluster, or unset the variable")]


def check_cluster(classes: Sequence[Resources], where: str, folder: Path) -> list[Problem]:
    """Check the resource classes of a space against the resources that are available.

    Args:
        classes: The resource classes of the space.
        where: Name of the space file.
        folder: As for :func:`read_available_capacity`.

    Returns:
        A warning if the space uses none of the available GPUs, or if the cluster does not answer.

    Raises:
        InputError: If the cluster can never hold a trial of a class.
    """
    capacity, problems = find_capacity(folder)
    if capacity is None:
        return problems
    if os.environ.get("RAY_ADDRESS"):  # a space for a cluster may be planned on a small machine
        resolve_classes(classes, capacity, where)
    return find_unused_gpus(classes, capacity.count_gpus(), where)


def resolve_classes(classes: Sequence[Resources], capacity: Capacity, where: str = "") -> tuple[Resources, ...]:
    """Return resource classes with numbers of GPUs, after checking that a cluster can hold each class.

    Args:
        classes: The resource classes of a space.
        capacity: The cluster.
        where: Name of the space file, for messages.

    Raises:
        InputError: With each class that the cluster can never hold.
    """
    resolved = tuple(resolve_resources(own, capacity.count_gpus()) for own in classes)
    problems = []
    for number, own in enumerate(resolved):
        key = "resources" if len(classes) == 1 else f"resources.{number}"
        problems.append(find_impossible_request(own, capacity, f"{where}: {key}" if where else key))
    if any(problems):
        raise InputError([problem for problem in problems if problem is not None])
    return resolved


def _list_autoscaler_commands(address: str) -> list[list[str]]:
    """Return the command lines of the autoscaler's processes on this machine for a cluster."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        is_autoscaler = any(part.endswith("monitor.py") and "autoscaler" in part for part in command)
        if is_autoscaler and f"{ADDRESS_OPTION}{address}" in command:
            found.append(command)
    return found


def _find_autoscaler_config(address: str) -> Mapping[str, Any] | None:
    """Return the configuration of the cluster's autoscaler; None if it has none or its process is elsewhere."""
    for command in _list_autoscaler_commands(address):
        for part in command:
            if part.startswith(CONFIG_OPTION):
                with suppress(OSError, yaml.YAMLError):
                    content = yaml.safe_load(Path(part.removeprefix(CONFIG_OPTION)).expanduser().read_text("utf-8"))
                    if isinstance(content, dict) and content.get("available_node_types"):
                        return content
    return None


def _read_node_types(config: Mapping[str, Any], present: Sequence[NodeType], limit: int) -> Iterator[NodeType]:
    """Yield the node types of an autoscaler's configuration, the head with the resources that it announces."""
    yield from (node for node in present if HEAD_RESOURCE in node.resources)
    for name, row in config["available_node_types"].items():
        if name != config.get("head_node_type"):
            resources = {key: float(value) for key, value in (row.get("resources") or {}).items()}
            yield NodeType(resources, min(limit, int(row.get("max_workers", limit))), on_demand=True)


def count_groups(resources: Resources, capacity: Capacity) -> int:
    """Return the number of worker groups that fit on a cluster. The workers of a group may be on several nodes.

    Args:
        resources: Resources of a group, with a number of GPUs.
        capacity: The cluster.
    """
    workers = int(capacity.sum_largest(lambda node: _count_workers(resources, node)))
    return workers // resources.workers_per_trial


def _count_workers(resources: Resources, node: Mapping[str, float]) -> int:
    """Return how many workers fit on a node; a worker cannot use fractions of several GPUs."""
    share = resources.get_worker_share()
    counts = []
    for name, amount in share.items():
        available = node.get(name, 0.0)
        is_fraction = name == "GPU" and amount < 1
        counts.append(int(available) * int(1 / amount + SLACK) if is_fraction else int(available / amount + SLACK))
    return min(counts, default=0)


def describe_request(resources: Resources, groups: int = 1) -> str:
    """Describe a request for resources, for messages.

    Args:
        resources: Resources of a group.
        groups: Number of groups.
    """
    times = f"{groups} groups of " if groups > 1 else ""
    kind = f" of type {resources.accelerator_type}" if resources.accelerator_type else ""
    amount = f"{resources.cpus_per_worker:g} CPU and {resources.gpu_share:g} GPU{kind}"
    return f"{times}{resources.workers_per_trial} x {amount}"


def describe_class(resources: Resources) -> str:
    """Return the name of a resource class for messages; empty for the only class of a space that names none."""
    return "" if resources.name == DEFAULT_CLASS else f" of class {resources.name}"


def find_impossible_request(resources: Resources, capacity: Capacity, where: str) -> Problem | None:
    """Return why a cluster can never hold one worker group; None if it can or may.

    Args:
        resources: Resources of a group, with a number of GPUs.
        capacity: The cluster.
        where: Key of the resources, for the message.
    """
    if not capacity.is_final or count_groups(resources, capacity):
        return None
    return Problem(
        where,
        f"a trial{describe_class(resources)} needs {describe_request(resources)}",
        allowed=f"the cluster can provide {capacity.describe()}",
        remedy="lower workers_per_trial, cpus_per_worker or gpus_per_worker",
    )
