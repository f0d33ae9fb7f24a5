"""Searches on a cluster of several nodes, each started with `ray start` on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clusters import Cluster

WriteSpace = Callable[[Mapping[str, Any]], Path]
RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WaitUntil = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], wait_until: WaitUntil
) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"), free_port, wait_until)
    made.add_node()
    yield made
    made.stop()


PROGRAM = """
import json, os, sys
from pathlib import Path
import search.cluster.environment
import ray
from clinie_core.config import TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from search.pool.pool import WorkerPool
from search.pool.program import TrainingProgram
from search.trials.job import Job
from search.trials.result import EpochResult
from search.config.resources import Resources

config, workers, groups, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])

class Program:
    def __init__(self, corpus): self.train = TrainingProgram((corpus,))
    def __call__(self, device):
        run, node = self.train(device), int(ray.get_runtime_context().get_node_id(), 16)
        def add_node(result): return EpochResult(result.epoch, {**result.metrics, "node": node}, result.finished)
        def run_and_report(job, on_report): run(job, lambda result: on_report(add_node(result)))
        return run_and_report

ray.init(log_to_driver=False, logging_level="error")
ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
corpus = ray.put(Corpus({s: tuple(n) for s, n in generate_splits(20, seed=3).items()}))
out = []
resources = Resources(workers_per_trial=workers, concurrent_trials=groups)
with WorkerPool([resources], Program(corpus), folder / "ray") as pool:
    jobs = [Job(f"job-{n}", n, config, "tiny", folder / str(n)) for n in range(groups)]
    messages = ray.get([pool.queue.submit.remote(job) for job in jobs])
    for job, message in zip(jobs, messages):
        while isinstance(message, EpochResult):
            metrics = {k: message.metrics[k] for k in ("train_loss", "node")}
            out.append(metrics | {"epoch": message.epoch, "trial": job.number})
            if message.finished: break
            message = ray.get(pool.queue.next_report.remote(job.id))
        else:
            out.append({"reason": message.reason})
print(json.dumps(out))
"""


def run_pool(cluster: Cluster, config: Any, folder: Path, *, workers: int, groups: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", PROGRAM, config.model_dump_json(), str(workers), str(groups), str(folder)]
    done = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, timeout=600, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_trials_are_spread_over_nodes_and_two_nodes_reproduce_the_loss_of_one_process(
    cluster: Cluster, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    no_dropout = {"name": "token_classification", "parameters": {"dropout": 0.0}}
    config = make_config(epochs=2, batch_size=4, formulation=no_dropout)
    apart = run_pool(cluster, config, tmp_path, workers=1, groups=2)
    assert len({report["node"] for report in apart}) == 2
    alone = {report["epoch"]: report["train_loss"] for report in apart if report["trial"] == 0}
    for sharded in (False, True):
        folder = tmp_path / f"together-{sharded}"
        folder.mkdir()
        shared = config.model_copy(update={"sharded": sharded})
        together = run_pool(cluster, shared, folder, workers=2, groups=1)
        assert {report["epoch"] for report in together} == {1, 2}
        for report in together:
            assert report["train_loss"] == pytest.approx(alone[report["epoch"]], rel=1e-3)


def test_a_submitted_search_is_stopped_and_resumed_on_the_cluster(
    cluster: Cluster,
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    wait_until: WaitUntil,
) -> None:
    # Ray prefers a token in the environment to one in a file, and this process has one for its own local Ray.
    client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()}
    home, there = str(tmp_path / "home"), ["--address", cluster.dashboard]
    content = space_content | {"study": f"sent-{uuid.uuid4().hex[:6]}", "budget": {"trials": 2, "epochs": 60}}
    space, study = write_space(content | {"algorithm": {"scheduler": "none"}}), content["study"]

    relative = clinie("submit", space, "corpus.path=notes", *there, "--home", home, **client)
    assert relative.returncode == 2
    assert "corpus.path: notes is relative, and the search runs on the cluster" in relative.stderr
    wrong_token = clinie("submit", space, *there, "--home", home, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert wrong_token.returncode == 2
    assert "rejects the token" in wrong_token.stderr

    sent = clinie("submit", space, *there, "--home", home, "--json", **client)
    assert sent.returncode == 0, sent.stderr
    job = json.loads(sent.stdout)["job"]

    def status() -> str:
        shown = clinie("status", job, *there, "--json", **client)
        assert shown.returncode == 0, shown.stderr
        return str(json.loads(shown.stdout)["jobs"][0]["status"])

    def epochs() -> list[int]:
        shown = clinie("status", study, "--home", home, "--json")
        return [t["epochs"] for t in json.loads(shown.stdout)["trials"]] if shown.returncode == 0 else []

    def running() -> bool:
        assert status() in ("pending", "running"), clinie("logs", job, *there, **client).stdout
        return any(epochs())

    wait_until(running)
    unknown = clinie("stop", study, "99", *there, **client)
    assert unknown.returncode == 2, unknown.stdout
    assert "there is no trial 99" in unknown.stdout
    added = clinie("add-budget", study, "--trials", "1", *there, **client)
    assert added.returncode == 0, added.stdout + added.stderr
    assert "add-budget of 1 trials: accepted" in added.stdout
    stopped = clinie("stop", study, *there, **client)
    assert stopped.returncode == 0, stopped.stderr
    wait_until(lambda: status() not in ("pending", "running"))
    assert "continue with: clinie resume" in clinie("logs", job, *there, **client).stdout
    before = json.loads(clinie("status", study, "--home", home, "--json").stdout)["trials"]
    assert {t["state"] for t in before} <= {"interrupted", "complete"}

    again = clinie("submit", study, "--resume", *there, "--home", home, "--json", **client)
    assert again.returncode == 0, again.stderr
    followed = clinie("logs", json.loads(again.stdout)["job"], "--follow", *there, **client)
    assert f"study {study}" in followed.stdout
    after = json.loads(clinie("status", study, "--home", home, "--json").stdout)["trials"]
    assert [(t["state"], t["epochs"]) for t in after] == [("complete", 60)] * 3
    assert [t["run_id"] for t in after[: len(before)]] == [t["run_id"] for t in before]
    (newest,) = json.loads(clinie("status", study, *there, "--json", **client).stdout)["jobs"]
    assert newest["status"] == "succeeded"


@pytest.mark.slow
def test_a_trial_moves_to_the_remaining_node(
    cluster: Cluster,
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    wait_until: WaitUntil,
) -> None:
    node, home = cluster.add_node(), tmp_path / "home"
    content = space_content | {"budget": {"trials": 3, "epochs": 30}, "algorithm": {"scheduler": "none"}}
    content["resources"] = {"concurrent_trials": 3}  # one on each node
    program = [str(Path(sys.executable).with_name("clinie")), "search", str(write_space(content)), "--home", str(home)]
    pipe = subprocess.PIPE
    search = subprocess.Popen(program, env=cluster.environment, stdout=pipe, stderr=pipe, text=True)

    def all_running() -> bool:
        assert search.poll() is None, search.communicate()
        shown = clinie("status", "small", "--home", home, "--json")
        trials = json.loads(shown.stdout)["trials"] if shown.returncode == 0 else []
        return len(trials) == 3 and all(t["epochs"] for t in trials)

    wait_until(all_running)
    (raylet,) = [p for p in psutil.Process(node.pid).children(recursive=True) if p.name() == "raylet"]
    raylet.kill()
    _, messages = search.communicate(timeout=900)
    assert search.returncode == 0, messages
    assert "Traceback" not in messages
    trials = json.loads(clinie("status", "small", "--home", home, "--json").stdout)["trials"]
    assert [(t["state"], t["epochs"]) for t in trials] == [("complete", 30)] * 3
