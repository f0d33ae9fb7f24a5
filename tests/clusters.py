"""Ray clusters of several nodes on one machine: one `ray start` per node, on loopback and with a token."""

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
    """A Ray cluster: a head and further nodes.

    Args:
        folder: Folder for the token and the nodes' logs.
        free_port: Function that finds an unused port.
        wait_until: Function that waits for a condition.
        head_cpus: Number of cores that the head announces.
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
        env["PATH"] = f"{RAY.parent}{os.pathsep}{env['PATH']}"  # Ray searches it for a job's command
        self._node_environment = env
        self.environment = {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        """Environment of a client: Ray's address and the file of its token."""
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        """URL to which jobs are submitted."""
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
        """Terminate all nodes and their child processes."""
        for node in reversed(self.nodes):
            end_with_children(node)
