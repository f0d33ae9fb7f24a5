"""A search whose process is killed at any point has the same outcome as a search without faults."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.faults.searches import (
    INJECT,
    POINTS,
    TRIALS,
    SearchOutcome,
    assert_same,
    find_processes,
    read_outcome,
    run,
    write_search,
)

VICTIMS = {
    "the worker": "RayTrainWorker",
    "the Tune actor": "TrialTrainable|ResourceTrainable",  # process titles: idle, and while it waits for an epoch
    "the job queue": "JobQueue",
    "the driver": "driver",
}
QUICK = {("between MLflow and the ledger", "the driver")}
"""Cases that run with every change; the others are slow."""
CASES = [
    pytest.param(point, victim, marks=() if (point, victim) in QUICK else pytest.mark.slow)
    for point in POINTS
    for victim in VICTIMS
]


def assert_undisturbed(
    done: subprocess.CompletedProcess[str], home: Path, signs: Path, undisturbed: SearchOutcome
) -> None:
    """Assert that the outcome is the same, and that at most the interrupted epoch was trained twice."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_same(read_outcome(home), undisturbed)
    trained = Counter((signs / "epochs").read_text().splitlines())
    repeated = {epoch: count for epoch, count in trained.items() if count > 1}
    assert sum(repeated.values()) <= 2, f"more than the interrupted epoch was trained again: {repeated}"


@pytest.mark.parametrize(("point", "victim"), CASES)
def test_a_kill_does_not_change_the_outcome(
    point: str,
    victim: str,
    tmp_path: Path,
    corpus_folder: Path,
    undisturbed: SearchOutcome,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    home, signs = tmp_path / "home", tmp_path / "signs"
    signs.mkdir()
    fault = {**POINTS[point], "victim": VICTIMS[victim], "folder": str(signs)}
    done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault)
    if victim == "the driver":
        assert done.returncode < 0, "the driver was not killed"
        traced = {**fault, "count": 0}  # no second kill
        done = run(["resume", "faults"], home, traced)
    else:
        assert (signs / "killed").exists(), f"there was no {victim} to kill: {done.stderr}"
    assert_undisturbed(done, home, signs, undisturbed)
    for number, steps in undisturbed.steps.items():
        assert steps == sorted(set(steps)), f"trial {number} has a step twice"
    assert not list(home.glob("studies/faults/trials/*")), "a checkpoint of an ended trial remains"
    wait_until(lambda: not find_processes(home))


def test_a_finished_study_is_extended(undisturbed: SearchOutcome, undisturbed_home: Path) -> None:
    done = run(["extend", "faults", "--trials", "1"], undisturbed_home, None)
    assert done.returncode == 0, done.stderr
    longer = read_outcome(undisturbed_home)
    assert longer.trials[:TRIALS] == undisturbed.trials
    assert len(longer.trials) == TRIALS + 1
    assert longer.trials[TRIALS]["state"] == "complete"
    stopped = run(["stop", "faults"], undisturbed_home, None)
    assert stopped.returncode == 2
    assert "no search of 'faults' is running" in stopped.stderr


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_loss_of_a_node_does_not_change_the_outcome(
    point: str,
    tmp_path: Path,
    corpus_folder: Path,
    undisturbed: SearchOutcome,
    free_port: Callable[[], int],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """The raylet of the node that trains is killed. The driver is on the head node, and another node remains."""
    home, signs = tmp_path / "home", tmp_path / "signs"
    signs.mkdir()
    fault = {**POINTS[point], "victim": "raylet", "folder": str(signs)}
    faulty = {"CLINIE_FAULT": json.dumps(fault), "PYTHONPATH": str(INJECT)}
    cluster = Cluster(tmp_path, free_port, wait_until, head_cpus=0, variables=faulty)
    try:
        nodes = [cluster.add_node(), cluster.add_node()]
        (signs / "nodes").write_text(" ".join(str(node.pid) for node in nodes), encoding="ascii")
        reach = {key: value for key, value in cluster.environment.items() if key.startswith("RAY_")}
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **reach)
    finally:
        cluster.stop()
    assert (signs / "killed").read_text().split() == ["raylet"]
    assert_undisturbed(done, home, signs, undisturbed)
