"""Requests per second and latency of a served model: `clinie serve` compared with MLflow's server.

Both servers have the same model and one core for predictions; 1, 8 and 32 clients post one note at a time.

    python benchmarks/serve.py --home clinie-home --model my-model@champion [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from clinie_core.data.corpora.synthetic import generate_splits
from search.storage.home import Home

CLIENTS = (1, 8, 32)
START_SECONDS = 180


def find_free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: list[str], health: str, env: dict[str, str]) -> Iterator[None]:
    """Run a server while this context is active."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(health, timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[:4]} did not start") from None
                time.sleep(0.5)
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        for child in family:
            if child.is_running():
                child.terminate()
        psutil.wait_procs(family, timeout=30)


def measure_latencies(
    url: str, body: Callable[[str], object], notes: list[str], clients: int, seconds: float
) -> list[float]:
    """Return the latencies, in seconds, of all requests that the clients made."""

    def client(number: int) -> list[float]:
        latencies, at = [], number
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = json.dumps(body(notes[at % len(notes)])).encode()
            request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
            started = time.perf_counter()
            with urllib.request.urlopen(request, timeout=120) as response:
                response.read()
            latencies.append(time.perf_counter() - started)
            at += clients
        return latencies

    with ThreadPoolExecutor(clients) as pool:
        return [latency for own in pool.map(client, range(clients)) for latency in own]


def main() -> None:
    """Measure both servers, one at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("clinie-home"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    notes = [note.text for note in generate_splits(60, seed=5)["train"]]
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    env["MLFLOW_TRACKING_URI"] = Home.open(options.home).tracking_uri
    ports = find_free_port(), find_free_port()
    servers: dict[str, tuple[list[str], str, str, Callable[[str], object]]] = {
        "clinie serve": (
            [str(bin_folder / "clinie"), "serve", options.model, "--home", str(options.home), "--port", str(ports[0])],
            f"http://127.0.0.1:{ports[0]}/healthz",
            f"http://127.0.0.1:{ports[0]}/predict",
            lambda text: {"texts": [text]},
        ),
        "mlflow models serve": (
            [
                *(sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{options.model}"),
                *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(ports[1])),
            ],
            f"http://127.0.0.1:{ports[1]}/ping",
            f"http://127.0.0.1:{ports[1]}/invocations",
            lambda text: {"inputs": [text]},
        ),
    }
    rates: dict[tuple[str, int], float] = {}
    for name, (command, health, url, body) in servers.items():
        with run_server(command, health, env):
            measure_latencies(url, body, notes, 1, 2.0)  # warm-up
            for clients in CLIENTS:
                found = measure_latencies(url, body, notes, clients, options.seconds)
                rates[name, clients] = len(found) / options.seconds
                centiles = statistics.quantiles(found, n=100)
                print(
                    f"{name:<20} {clients:>3} clients  {rates[name, clients]:7.1f} requests/s"
                    f"  p50 {centiles[49] * 1000:7.1f} ms  p99 {centiles[98] * 1000:7.1f} ms"
                )
    for clients in CLIENTS:
        ratio = rates["clinie serve", clients] / rates["mlflow models serve", clients]
        print(f"{clients} clients: clinie serves {ratio:.2f} times as many requests per second")


if __name__ == "__main__":
    main()
