"""Ray clusters of several nodes on one machine: one `ray start` per node, on loopback and with a token.

A cluster may have Ray's own autoscaler, with its fake provider: a node that it starts is a raylet on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray._private.services import get_node_ip_address

from tests.processes import end_with_children

RAY = Path(sys.executable).with_name("ray")
HEAD_ID = "f" * 51 + "00000"
"""Identifier of the head that the fake provider expects."""
IDLE_MINUTES = 0.25
COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)


class Cluster:
    """A Ray cluster: a head and further nodes.

    Args:
        folder: Folder for the token and the nodes' logs.
        free_port: Function that finds an unused port.
        wait_until: Function that waits for a condition.
        head_cpus: Number of cores that the head announces.
        node_types: Types of nodes that the autoscaler may start: resources and maximum number by name; None for no
            autoscaler.
        variables: Environment variables of all nodes.
    """

    def __init__(
        self,
        folder: Path,
        free_port: Callable[[], int],
        wait_until: Callable[[Callable[[], bool]], None],
        *,
        head_cpus: int = 1,
        node_types: Mapping[str, tuple[Mapping[str, float], int]] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        token = folder / "token"
        token.write_text(secrets.token_hex(32), encoding="ascii")
        token.chmod(0o600)
        self._folder = folder
        self._free_port = free_port
        self._wait_until = wait_until
        port, dashboard = free_port(), free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH_", "RAY_ADDRESS"))}
        env |= dict(variables or {})
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        env["PATH"] = f"{RAY.parent}{os.pathsep}{env['PATH']}"  # Ray searches it for a job's command
        env["RAY_worker_maximum_startup_concurrency"] = "16"
        if node_types is not None:
            env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        self._node_environment = env
        # Ray prefers a token in the environment to one in a file, and this process has one for its own local Ray.
        own = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_TOKEN": token.read_text()}
        self.environment = {**env, **own}
        """Environment of a client: Ray's address and the file of its token."""
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        """URL to which jobs are submitted."""
        self.nodes: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        head.append(f"--ray-client-server-port={free_port()}")  # the default port would be used by every cluster
        if node_types is not None:
            configuration = folder / "autoscaler.json"
            configuration.write_text(json.dumps(configure_autoscaler(node_types, head_cpus, port)), encoding="utf-8")
            head.append(f"--autoscaling-config={configuration}")
        self._start(head_cpus, *head)
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        assert self.nodes[0].poll() is None, (self._folder / "node-0.log").read_text()
        return self._alive() == 1

    def _start(self, cpus: int, *options: str) -> subprocess.Popen[bytes]:
        command = [str(RAY), "start", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", *options]
        env = self._node_environment
        if "--head" in options and "RAY_FAKE_CLUSTER" in env:
            env = env | {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
        command += [f"--dashboard-agent-listen-port={self._free_port()}", "--object-store-memory=200000000"]
        with (self._folder / f"node-{len(self.nodes)}.log").open("ab") as log:
            node = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        return node

    def _alive(self) -> int:
        return len(self.list_nodes())

    def list_nodes(self) -> list[str]:
        """Return the identifiers of the nodes that are alive; none while the head starts."""
        program = "import ray; ray.init(log_to_driver=False); print(*[n['NodeID'] for n in ray.nodes() if n['Alive']])"
        command = [sys.executable, "-c", program]
        env = {key: value for key, value in self.environment.items() if key != "CLINIE_FAULT"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
        return done.stdout.split() if done.returncode == 0 else []

    def drain(self, node: str, seconds: int) -> None:
        """Announce the end of a node, as a cloud does for a spot node.

        Args:
            node: Identifier of the node.
            seconds: Time until the node ends.
        """
        reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        command = [str(RAY), "drain-node", f"--node-id={node}", *reason, f"--deadline-remaining-seconds={seconds}"]
        subprocess.run(command, env=self.environment, check=True, timeout=120)

    def add_node(self) -> subprocess.Popen[bytes]:
        """Start a node with one core and wait until it has joined."""
        before = self._alive()
        node = self._start(1, f"--address={self.environment['RAY_ADDRESS']}")
        self._wait_until(lambda: self._alive() > before)
        return node

    def stop(self) -> None:
        """Terminate all nodes and their child processes."""
        for node in reversed(self.nodes):
            end_with_children(node)


def configure_autoscaler(
    node_types: Mapping[str, tuple[Mapping[str, float], int]], head_cpus: int, port: int
) -> dict[str, Any]:
    """Return the configuration of Ray's autoscaler with its fake provider.

    Args:
        node_types: Resources and maximum number of nodes, by type.
        head_cpus: Number of cores of the head.
        port: Port of the head.
    """
    workers = {
        name: {
            "resources": {**resources, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": count,
        }
        for name, (resources, count) in node_types.items()
    }
    head = {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": sum(count for _, count in node_types.values()),
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 10,
        "provider": {
            # Ray's wheel lacks the default configuration of the type fake_multinode.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": f"{get_node_ip_address()}:{port}",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, **workers},
        "head_node_type": "ray.head.default",
        **{key: {} for key in ("auth", "file_mounts")},
        **{key: [] for key in (*COMMANDS, "cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }
