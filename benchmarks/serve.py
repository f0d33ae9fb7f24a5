"""Requests per second and latency of a served model: `clinie serve` compared with MLflow's server.

Both servers have the same model and run on the same core, the clients on the others. 1, 8 and 32 clients post one
note at a time over connections that they keep. Both servers run during the whole comparison and are measured in
alternation, so that other programs of the machine affect both alike.

    python benchmarks/serve.py --home clinie-home --model my-model@champion [--seconds 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from clinie_core.data.corpora.synthetic import generate_splits
from search.storage.home import Home

CLIENTS = (1, 8, 32)
START_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Args:
        command: Its command line.
        port: Its port on the loopback interface.
        health: Path that answers once the server is ready.
        path: Path of predictions.
        body: Returns the body of a request for a note.
    """

    command: list[str]
    port: int
    health: str
    path: str
    body: Callable[[str], object]


def find_free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(server: Server, env: dict[str, str]) -> Iterator[psutil.Process]:
    """Run a server while this context is active; return its process."""
    health = f"http://127.0.0.1:{server.port}{server.health}"
    process = subprocess.Popen(server.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})  # inherited by its threads and processes
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(health, timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{server.command[:4]} did not start") from None
                time.sleep(0.5)
        yield psutil.Process(process.pid)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        for child in family:
            if child.is_running():
                child.terminate()
        psutil.wait_procs(family, timeout=30)


def measure_cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and its descendants."""
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure_latencies(server: Server, notes: list[str], clients: int, seconds: float) -> list[float]:
    """Return the latencies, in seconds, of all requests that the clients made."""

    def client(number: int) -> list[float]:
        latencies, at = [], number
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = json.dumps(server.body(notes[at % len(notes)])).encode()
            started = time.perf_counter()
            connection.request("POST", server.path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            latencies.append(time.perf_counter() - started)
            at += clients
        connection.close()
        return latencies

    with ThreadPoolExecutor(clients) as pool:
        return [latency for own in pool.map(client, range(clients)) for latency in own]


def main() -> None:
    """Measure both servers, one at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("clinie-home"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements of each server")
    options = parser.parse_args()
    notes = [note.text for note in generate_splits(60, seed=5)["train"]]
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    env["MLFLOW_TRACKING_URI"] = Home.open(options.home).tracking_uri
    ports = find_free_port(), find_free_port()
    serve = [str(bin_folder / "clinie"), "serve", options.model, "--home", str(options.home), "--port", str(ports[0])]
    mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{options.model}"]
    mlflow += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(ports[1])]
    servers = {
        "clinie serve": Server(serve, ports[0], "/healthz", "/predict", lambda text: {"texts": [text]}),
        "mlflow models serve": Server(mlflow, ports[1], "/ping", "/invocations", lambda text: {"inputs": [text]}),
    }
    with ExitStack() as stack:
        processes = {name: stack.enter_context(run_server(server, env)) for name, server in servers.items()}
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores - {min(cores)} or cores)
        for server in servers.values():
            measure_latencies(server, notes, 1, 2.0)  # warm-up
        for clients in CLIENTS:
            found: dict[str, list[float]] = {name: [] for name in servers}
            cpu = dict.fromkeys(servers, 0.0)
            for _ in range(options.rounds):
                for name, server in servers.items():
                    before = measure_cpu_seconds(processes[name])
                    found[name] += measure_latencies(server, notes, clients, options.seconds)
                    cpu[name] += measure_cpu_seconds(processes[name]) - before
            for name, latencies in found.items():
                centiles = statistics.quantiles(latencies, n=100)
                rate = len(latencies) / options.seconds / options.rounds
                used = cpu[name] / len(latencies)
                print(
                    f"{name:<20} {clients:>3} clients  {rate:7.1f} requests/s"
                    f"  p50 {centiles[49] * 1000:7.1f} ms  p99 {centiles[98] * 1000:7.1f} ms  {used * 1000:6.1f} CPU ms"
                )
            ratio = len(found["clinie serve"]) / len(found["mlflow models serve"])
            print(f"{clients} clients: clinie serves {ratio:.2f} times as many requests per second", flush=True)


if __name__ == "__main__":
    main()
