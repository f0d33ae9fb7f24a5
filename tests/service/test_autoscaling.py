"""Searches on a cluster whose autoscaler starts nodes on demand, from a head that trains nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clusters import HEAD_ID, Cluster

WriteSpace = Callable[[Mapping[str, Any]], Path]
RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WaitUntil = Callable[[Callable[[], bool]], None]
KEYS = ("number", "state", "reason", "parameters", "epochs", "best_epoch", "metrics")


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], wait_until: WaitUntil
) -> Iterator[Cluster]:
    types = {"cpu": ({"CPU": 1.0}, 3)}
    made = Cluster(tmp_path_factory.mktemp("cluster"), free_port, wait_until, head_cpus=0, node_types=types)
    yield made
    made.stop()


@pytest.fixture
def content(space_content: dict[str, Any]) -> dict[str, Any]:
    """A space whose trials do not depend on the order in which they end."""
    space = space_content["space"] | {"formulation": "token_classification"}
    algorithm = {"sampler": "random", "scheduler": "none"}
    return space_content | {"space": space, "algorithm": algorithm, "resources": {"cpus_per_worker": 1}}


def read_trials(clinie: RunClinie, home: Path) -> list[dict[str, Any]]:
    """Return the trials of a study without what depends on the time."""
    shown = clinie("status", "small", "--home", home, "--json")
    if shown.returncode != 0:
        return []
    found = [{key: trial[key] for key in KEYS} for trial in json.loads(shown.stdout)["trials"]]
    for trial in found:
        trial["metrics"] = {name: trial["metrics"].get(name) for name in ("strict_f1", "train_loss")}
    return found


def count_runs(home: Path) -> list[tuple[int, list[int]]]:
    """Return the trial and the steps of each run in MLflow."""
    from mlflow.tracking import MlflowClient

    from search.storage.home import Home

    client = MlflowClient(Home(home).tracking_uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.clinie.kind = 'trial'")
    return sorted(
        (
            int(run.data.tags["clinie.trial"]),
            [m.step for m in client.get_metric_history(run.info.run_id, "dev/strict_f1")],
        )
        for run in runs
    )


def start_search(cluster: Cluster, space: Path, home: Path) -> subprocess.Popen[str]:
    program = [str(Path(sys.executable).with_name("clinie")), "search", str(space), "--home", str(home)]
    pipe = subprocess.PIPE
    return subprocess.Popen(program, env=cluster.environment, stdout=pipe, stderr=pipe, text=True)


def list_workers(cluster: Cluster) -> list[str]:
    return [node for node in cluster.list_nodes() if node != HEAD_ID]


def test_a_search_starts_nodes_and_releases_them(
    cluster: Cluster,
    content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    space = write_space(content | {"budget": {"trials": 4, "epochs": 2}})
    assert list_workers(cluster) == []
    done = clinie("search", space, "--home", tmp_path / "home", **cluster.environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^waiting for [123] CPUs?, [012] of 3 groups up$", done.stderr, re.MULTILINE), done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    alone = clinie("search", space, "resources.concurrent_trials=2", "--home", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert read_trials(clinie, tmp_path / "home") == read_trials(clinie, tmp_path / "alone")
    assert count_runs(tmp_path / "home") == count_runs(tmp_path / "alone") == [(n, [1, 2]) for n in range(4)]
    wait_until(lambda: list_workers(cluster) == [])


def test_a_request_that_no_node_can_satisfy_is_rejected_before_the_first_trial(
    cluster: Cluster, content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie, tmp_path: Path
) -> None:
    space = write_space(content | {"resources": {"cpus_per_worker": 2}})
    expected = (
        "space.yaml: resources: a trial needs 1 x 2 CPU and 0 GPU; the cluster can provide at most 3 CPU and 0 GPU, on"
        " one node 1 CPU and 0 GPU; lower workers_per_trial, cpus_per_worker or gpus_per_worker"
    )
    token = {key: value for key, value in cluster.environment.items() if key.startswith("RAY_AUTH_")}
    for command, environment in (
        (("search", space, "--home", tmp_path / "home"), cluster.environment),
        (("plan", space), cluster.environment),
        (("plan", space, "--address", cluster.dashboard), token),
    ):
        done = clinie(*command, **environment)
        assert done.returncode == 2
        assert done.stderr.endswith(f"error {expected}\n")
        assert not read_trials(clinie, tmp_path / "home")


HOLD_ALL_NODES = """
import sys
import ray

@ray.remote(num_cpus=1)
class Holder:
    def is_up(self):
        return True

ray.init(log_to_driver=False)
holders = [Holder.remote() for _ in range(3)]
assert all(ray.get([holder.is_up.remote() for holder in holders]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held_nodes(cluster: Cluster) -> Iterator[None]:
    """Another program uses all nodes that the cluster may have."""
    command, pipe = [sys.executable, "-c", HOLD_ALL_NODES], subprocess.PIPE
    with subprocess.Popen(command, env=cluster.environment, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "held\n"
        yield
        program.stdin.close()


def test_a_search_that_gets_no_node_in_time_ends_with_one_line(
    cluster: Cluster,
    content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    tmp_path: Path,
    held_nodes: None,
) -> None:
    space = write_space(content | {"budget": {"trials": 2, "epochs": 1, "wait_minutes": 0.01}})
    done = clinie("search", space, "--home", tmp_path / "home", **cluster.environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "failed no node for 0.01 minutes (budget.wait_minutes): requested 2 groups of 1 x 1 CPU and 0 GPU; the cluster"
        " can provide at most 3 CPU and 0 GPU, on one node 1 CPU and 0 GPU; then continue with: clinie resume small"
    )
    assert [trial["epochs"] for trial in read_trials(clinie, tmp_path / "home")] in ([], [0], [0, 0])


@pytest.mark.slow
def test_each_resource_class_uses_its_own_type_of_node(
    content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    tmp_path: Path,
    free_port: Callable[[], int],
    wait_until: WaitUntil,
) -> None:
    types = {"small": ({"CPU": 1.0}, 1), "large": ({"CPU": 2.0, "accelerator_type:Large": 1.0}, 1)}
    cluster = Cluster(tmp_path, free_port, wait_until, head_cpus=0, node_types=types)
    try:
        # Only the trials of the class large have a price, so that their cost shows where they were trained.
        price = {"price_per_hour": 3600, "currency": "EUR"}
        large = {"name": "large", "cpus_per_worker": 2, "memory_gib": 8, "accelerator_type": "Large", **price}
        classes = [large, {"name": "small", "cpus_per_worker": 1, "memory_gib": 8, "concurrent_trials": 1}]
        tiny = content["backbones"]["tiny"]
        backbones = {"tiny": tiny, "wide": {**tiny, "resources": "large"}}
        points = [{"backbone": name} for name in ("tiny", "wide", "wide", "tiny")]
        changes = {
            "budget": {"trials": 4, "epochs": 1},
            "resources": classes,
            "backbones": backbones,
            "space": content["space"] | {"backbone": {"choose": ["tiny", "wide"]}},
            "algorithm": content["algorithm"] | {"points_to_evaluate": points},
        }
        done = clinie("search", write_space(content | changes), "--home", tmp_path / "home", **cluster.environment)
        assert done.returncode == 0, done.stderr
        shown = json.loads(clinie("status", "small", "--home", tmp_path / "home", "--json").stdout)
        assert [trial["state"] for trial in shown["trials"]] == ["complete"] * 4
        has_cost = {(trial["parameters"]["backbone"], "cost" in trial) for trial in shown["trials"]}
        assert has_cost == {("tiny", False), ("wide", True)}
        assert shown["currency"] == "EUR"
        assert shown["cost"] == pytest.approx(sum(trial.get("cost", 0) for trial in shown["trials"]))
        wait_until(lambda: list_workers(cluster) == [])
    finally:
        cluster.stop()


@pytest.mark.slow
def test_a_node_leaves_during_an_epoch_while_another_joins(
    cluster: Cluster,
    content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    space = write_space(content | {"budget": {"trials": 4, "epochs": 25}})
    search = start_search(cluster, space, tmp_path / "home")

    def is_training() -> bool:
        assert search.poll() is None, search.communicate()
        return any(trial["epochs"] for trial in read_trials(clinie, tmp_path / "home"))

    wait_until(is_training)
    family = psutil.Process(cluster.nodes[0].pid).children(recursive=True)
    worker = next(process for process in family if "RayTrainWorker" in " ".join(process.cmdline()))
    raylet = worker.parent()
    assert raylet is not None
    raylet.kill()
    _, messages = search.communicate(timeout=900)
    assert search.returncode == 0, messages
    alone = clinie("search", space, "resources.concurrent_trials=2", "--home", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert read_trials(clinie, tmp_path / "home") == read_trials(clinie, tmp_path / "alone")
    assert count_runs(tmp_path / "home") == count_runs(tmp_path / "alone")
