"""The capacity of a cluster that is reached through its Ray dashboard: a job on its head node reports it.

Run as a program, the module is that job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clinie_core.errors import fail
from search.cluster.capacity import Capacity, NodeType, read_capacity

__all__ = ["fetch_capacity"]

MARK = "clinie-capacity "
"""Beginning of the line with the result."""
COMMAND = "python -m search.cluster.remote_capacity"


def fetch_capacity(address: str) -> Capacity:
    """Return the capacity of a cluster.

    Args:
        address: URL of the cluster's Ray dashboard.

    Raises:
        InputError: If the dashboard does not answer, or clinie is not installed on the cluster.
    """
    from search.cluster.submission import Jobs

    output = Jobs(address).run_program(COMMAND)
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        remedy = "install the same version of clinie on the cluster"
        fail("--address", f"the cluster at {address} cannot report its nodes", remedy=remedy)
    return _read(json.loads(line.removeprefix(MARK)))


def _read(content: Mapping[str, Any]) -> Capacity:
    types = tuple(NodeType(row["resources"], row["count"], row["on_demand"]) for row in content["node_types"])
    return Capacity(types, content["is_final"], content["max_on_demand"])


def _report() -> None:
    """Print the capacity of the cluster that this job runs on."""
    from search.cluster.session import ray_session

    with ray_session(Path.cwd()):
        print(MARK + json.dumps(asdict(read_capacity())))


if __name__ == "__main__":
    _report()
