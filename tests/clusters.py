"""Clusters of several nodes on one machine, each node a `ray start` of its own on loopback, behind a token."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.processes import end_with_children

RAY = Path(sys.executable).with_name("ray")


class Cluster:
    """A head and further nodes.

    Args:
        folder: For the token and the nodes' logs.
        free_port: Finds ports.
        wait_until: Waits for nodes to join.
        head_cpus: Cores that the head says it has.
        variables: Environment variables of all nodes.
    """

    def __init__(
        self,
        folder: Path,
        free_port: Callable[[], int],
        wait_until: Callable[[Callable[[], bool]], None],
        *,
        head_cpus: int = 1,
        **variables: str,
    ) -> None:
        token = folder / "token"
        token.write_text(secrets.token_hex(32), encoding="ascii")
        token.chmod(0o600)
        self._folder = folder
        self._free_port = free_port
        self._wait_until = wait_until
        port, dashboard = free_port(), free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH_", "RAY_ADDRESS"))} | variables
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        env["PATH"] = f"{RAY.parent}{os.pathsep}{env['PATH']}"  # a job's command is looked for there
        self._node_environment = env
        self.environment = {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        """What a client needs: Ray's address and the file that holds its token."""
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        """Where jobs are sent."""
        self.nodes: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        self._start(head_cpus, *head)
        wait_until(lambda: self._alive() == 1)

    def _start(self, cpus: int, *options: str) -> subprocess.Popen[bytes]:
        command = [str(RAY), "start", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", *options]
        command += [f"--dashboard-agent-listen-port={self._free_port()}", "--object-store-memory=200000000"]
        with (self._folder / f"node-{len(self.nodes)}.log").open("ab") as log:
            node = subprocess.Popen(command, env=self._node_environment, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        return node

    def _alive(self) -> int:
        program = "import ray; ray.init(log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        command = [sys.executable, "-c", program]
        env = {key: value for key, value in self.environment.items() if key != "CLINIE_FAULT"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        return int(done.stdout) if done.returncode == 0 else 0

    def add_node(self) -> subprocess.Popen[bytes]:
        """Start a node with one core and wait until it has joined."""
        before = self._alive()
        node = self._start(1, f"--address={self.environment['RAY_ADDRESS']}")
        self._wait_until(lambda: self._alive() > before)
        return node

    def stop(self) -> None:
        """End all nodes and what they started, by pid."""
        for node in reversed(self.nodes):
            end_with_children(node)
