"""A search of which a process is killed, each at each point, ends as one that nothing happened to."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.faults.searches import INJECT, POINTS, TRIALS, Ending, ending_of, expect, processes_of, run, write_search

VICTIMS = {
    "the worker": "RayTrainWorker",
    "the trial client": "TrialTrainable|ResourceTrainable",  # at rest, and while it waits for an epoch
    "the job board": "JobQueue",
    "the driver": "driver",
}
QUICK = {("between MLflow and the ledger", "the driver")}
"""What runs with every change; the others are slow."""
CASES = [
    pytest.param(point, victim, marks=() if (point, victim) in QUICK else pytest.mark.slow)
    for point in POINTS
    for victim in VICTIMS
]


def expect_undisturbed(done: subprocess.CompletedProcess[str], home: Path, signs: Path, undisturbed: Ending) -> None:
    """The search that ended last has found the same, and trained the epoch that was cut off again at most."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    expect(ending_of(home), undisturbed)
    trained = Counter((signs / "epochs").read_text().splitlines())
    repeated = {epoch: count for epoch, count in trained.items() if count > 1}
    assert sum(repeated.values()) <= 2, f"more than the epoch that was cut off was trained again: {repeated}"


@pytest.mark.parametrize(("point", "victim"), CASES)
def test_a_kill_changes_nothing_of_what_a_search_finds(
    point: str,
    victim: str,
    tmp_path: Path,
    corpus_folder: Path,
    undisturbed: Ending,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    home, signs = tmp_path / "home", tmp_path / "signs"
    signs.mkdir()
    fault = {**POINTS[point], "victim": VICTIMS[victim], "folder": str(signs)}
    done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault)
    if victim == "the driver":
        assert done.returncode < 0, "the driver was to be killed"
        traced = {**fault, "count": 0}  # no second kill
        done = run(["resume", "faults"], home, traced)
    else:
        assert (signs / "killed").exists(), f"there was no {victim} to kill: {done.stderr}"
    expect_undisturbed(done, home, signs, undisturbed)
    for number, steps in undisturbed.steps.items():
        assert steps == sorted(set(steps)), f"trial {number} has a step twice"
    assert not list(home.glob("studies/faults/trials/*")), "a checkpoint of a trial that ended was left"
    wait_until(lambda: not processes_of(home))


def test_a_finished_study_is_extended(undisturbed: Ending, undisturbed_home: Path) -> None:
    done = run(["extend", "faults", "--trials", "1"], undisturbed_home, None)
    assert done.returncode == 0, done.stderr
    longer = ending_of(undisturbed_home)
    assert longer.trials[:TRIALS] == undisturbed.trials
    assert len(longer.trials) == TRIALS + 1
    assert longer.trials[TRIALS]["state"] == "complete"
    nobody = run(["stop", "faults"], undisturbed_home, None)
    assert nobody.returncode == 2
    assert "no search of 'faults' is running" in nobody.stderr


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_goes_changes_nothing_either(
    point: str,
    tmp_path: Path,
    corpus_folder: Path,
    undisturbed: Ending,
    free_port: Callable[[], int],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """The raylet of the node that trains is killed; the driver is on the head, and another node is left."""
    home, signs = tmp_path / "home", tmp_path / "signs"
    signs.mkdir()
    fault = {**POINTS[point], "victim": "raylet", "folder": str(signs)}
    faulty = {"CLINIE_FAULT": json.dumps(fault), "PYTHONPATH": str(INJECT)}
    cluster = Cluster(tmp_path, free_port, wait_until, head_cpus=0, **faulty)
    try:
        nodes = [cluster.add_node(), cluster.add_node()]
        (signs / "nodes").write_text(" ".join(str(node.pid) for node in nodes), encoding="ascii")
        reach = {key: value for key, value in cluster.environment.items() if key.startswith("RAY_")}
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **reach)
    finally:
        cluster.stop()
    assert (signs / "killed").read_text().split() == ["raylet"]
    expect_undisturbed(done, home, signs, undisturbed)
