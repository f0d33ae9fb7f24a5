"""A running search that is controlled from other processes: stop, pause, resume, clone and add-budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from clinie_core.errors import InputError
from search.api import Study, load_study
from search.ledger.records import TrialRecord
from search.storage.home import Home
from tests.conftest import RunClinie

WaitUntil = Callable[[Callable[[], bool]], None]
LONG = 100_000
"""Number of epochs that no trial of the tests finishes by itself."""


class RunningSearch:
    """A search in a process of its own, observed through its ledger."""

    def __init__(self, space: Path, home: Path, wait_until: WaitUntil) -> None:
        self.home = home
        self.log = home.parent / "search.log"
        self._wait_until = wait_until
        self._space = space
        self.process = self._start("search", str(space))
        wait_until(self._has_study)
        self.study: Study = load_study("small", home=home)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("clinie")), *arguments, "--home", str(self.home)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "COLUMNS": "140"})

    def _has_study(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        return (self.home / "ledger.journal").exists() and "small" in (self.home / "ledger.journal").read_text("utf-8")

    def find(self, number: int) -> TrialRecord | None:
        return next((record for record in self.study.records if record.number == number), None)

    def wait_for(self, number: int, state: str, *, epochs: int = 0) -> TrialRecord:
        def is_reached() -> bool:
            record = self.find(number)
            return record is not None and record.state == state and len(record.epochs) >= epochs

        self._wait_until(is_reached)
        record = self.find(number)
        assert record is not None
        return record

    def kill_and_resume(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start("resume", "small")
        self._wait_until(lambda: self.study.is_running)


@pytest.fixture
def running(
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: Callable[[Mapping[str, Any]], Path],
    wait_until: WaitUntil,
) -> Iterator[RunningSearch]:
    space_content["budget"] = {"trials": 2, "epochs": LONG, "hours": 1}
    space_content["algorithm"] = {"sampler": "random", "scheduler": "none"}
    space_content["resources"] = {"cpus_per_worker": 1, "concurrent_trials": 2}
    space_content["space"]["formulation"] = {"token_classification": {"head": "linear"}}
    space_content["space"]["finetuning"] = {"full": {"learning_rate": {"log": [1.0e-3, 1.0e-2]}}}
    search = RunningSearch(write_space(space_content), tmp_path / "home", wait_until)
    yield search
    if search.process.poll() is None:
        search.process.terminate()
        search.process.wait()


def test_a_running_search_obeys_commands_from_other_processes(running: RunningSearch, clinie: RunClinie) -> None:
    home, control = running.home, running.study.control

    def send(*arguments: str, code: int = 0) -> str:
        done = clinie(*arguments, "--home", home)
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout + done.stderr)

    for number in (0, 1):
        running.wait_for(number, "running", epochs=1)

    # A trial that is stopped ends with its finished epochs, and cannot be stopped twice.
    assert "stop trial 0: accepted" in send("stop", "small", "0", "--id", "first")
    stopped = running.wait_for(0, "pruned", epochs=1)
    assert stopped.reason == "stopped by a command"
    assert "trial 0 has ended (pruned: stopped by a command)" in send("stop", "small", "0", code=2)
    assert control.stop(0, id_="first").decision is not None

    # A clone is an additional trial with the changed value.
    assert "batch_size: found 9; choose 8, 16" in send("clone", "small", "0", "batch_size=9", code=2)
    for changes, message in (
        ({"batchsize": 8}, "batchsize: not a dimension of the space; allowed: batch_size, finetuning.full"),
        ({"window_tokens": 64}, "window_tokens: the space fixes it to 96"),
        ({}, "no change"),
    ):
        with pytest.raises(InputError, match=message):
            control.clone(0, changes)
    with pytest.raises(InputError, match="there is no trial 7"):
        control.clone(7, {"batch_size": 8})
    size = 8 if stopped.parameters["batch_size"] == 16 else 16
    assert "accepted: trial 2" in send("clone", "small", "0", f"batch_size={size}")
    clone = running.wait_for(2, "running", epochs=1)
    assert clone.parameters == {**stopped.parameters, "batch_size": size}

    # A paused trial holds no worker and continues after its last finished epoch.
    assert "add-budget of 1 trials: accepted" in send("add-budget", "small", "--trials", "1", "--id", "more")
    control.add_budget(trials=1, id_="more")
    with pytest.raises(InputError, match="more is the id of another command"):
        control.add_budget(trials=2, id_="more")
    send("pause", "small", "1")
    paused = running.wait_for(1, "paused", epochs=1)
    running.wait_for(3, "running", epochs=1)
    still = running.find(1)
    assert still is not None
    assert still.epochs == paused.epochs
    send("resume", "small", "1")
    control.stop(3)  # a resumed trial waits for a free worker
    running.wait_for(1, "running", epochs=len(paused.epochs) + 1)

    # A pause of the search pauses all trials; a killed driver keeps the commands, and its successor ends the pause.
    control.pause()
    epochs = {number: len(running.wait_for(number, "paused").epochs) for number in (1, 2)}
    assert control.is_paused
    with pytest.raises(InputError, match="the whole search is paused"):
        control.resume(1)
    running.kill_and_resume()
    for number in (1, 2):
        running.wait_for(number, "running", epochs=epochs[number] + 1)
        control.stop(number)
    running.process.wait(timeout=300)
    assert [record.state for record in running.study.records] == ["pruned"] * 4
    assert "no search of 'small' is running" in send("pause", "small", code=2)

    # All commands are shown by the status and by MLflow, where the last states are those of the ledger.
    shown = json.loads(send("status", "small", "--json"))["commands"]
    assert [(entry["kind"], entry["state"]) for entry in shown if entry["state"] == "rejected"] == [
        ("clone", "rejected")
    ] * 4
    section = next(section for section in running.study.report().sections if section.key == "commands")
    assert len(section.rows) == len(shown)
    client = MlflowClient(Home(home).tracking_uri)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.data.tags["clinie.kind"] == "study")
    tags = {key.removeprefix("clinie.command."): text for key, text in parent.data.tags.items() if "command" in key}
    assert set(tags) == {entry["id"] for entry in shown}
    states = {run.data.tags["clinie.trial"]: run.data.tags["clinie.state"] for run in runs if run is not parent}
    assert states == dict.fromkeys("0123", "pruned")
