"""Two drivers, each with its own local Ray and home folder, share a study whose ledger is a real PostgreSQL."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.tracking import MlflowClient
from optuna.storages import BaseStorage

from search.api import Study, load_study
from search.ledger.records import TrialRecord
from search.ledger.storage import open_storage
from search.ledger.studies import has_study
from search.storage.home import Home
from search.study.lock import find_drivers
from tests.processes import end_with_children

if TYPE_CHECKING:
    from tests.servers import PostgresServer

LONG = 100_000
"""Number of epochs that no trial of the tests finishes by itself."""
TRIALS, EPOCHS = 40, 5
WaitUntil = Callable[[Callable[[], bool]], None]


class SharedStudy:
    """A study in PostgreSQL, and the drivers that search it.

    Args:
        folder: Folder for the home folders and logs of the drivers.
        ledger: URL of the ledger's database.
        space: The space file.
        wait_until: Waits for a condition.
    """

    def __init__(self, folder: Path, ledger: str, space: Path, wait_until: WaitUntil) -> None:
        self._folder = folder
        self._ledger = ledger
        self._space = space
        self._wait_until = wait_until
        self.drivers: dict[str, subprocess.Popen[bytes]] = {}
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"

    def home(self, name: str) -> Home:
        home = Home.open(self._folder / name, self.tracking_uri, create=True)
        return replace(home, ledger=self._ledger)

    def start(self, name: str, *options: str) -> None:
        """Start a driver with a home folder of this name."""
        command = [str(Path(sys.executable).with_name("clinie")), "search", str(self._space), "--join"]
        command += ["--home", str(self._folder / name), "--tracking-uri", self.tracking_uri, *options]
        # The paths of Ray's sockets must be short.
        env = {**os.environ, "CLINIE_LEDGER": self._ledger, "RAY_TMPDIR": str(self._ray_folder(name))}
        with (self._folder / f"{name}.log").open("ab") as log:
            self.drivers[name] = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def read_log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8")

    @functools.cached_property
    def study(self) -> Study:
        return load_study("small", home=self.home("reader").root, tracking_uri=self.tracking_uri)

    def list_trials(self, name: str) -> list[TrialRecord]:
        """Return the trials of a driver."""
        host = f"-{self.drivers[name].pid}-"
        return [record for record in self.study.records if host in (record.driver or "")]

    def wait_for(self, name: str, condition: Callable[[list[TrialRecord]], bool]) -> None:
        """Wait for a condition of the trials of a driver, which must not end before."""

        def is_reached() -> bool:
            assert self.drivers[name].poll() is None, self.read_log(name)
            return has_study(self.storage, "small") and condition(self.list_trials(name))

        self._wait_until(is_reached)

    @functools.cached_property
    def storage(self) -> BaseStorage:
        return open_storage(self.home("reader"))

    def list_runs(self) -> list[tuple[str, str]]:
        """Return the trial, empty for the study, and the status of each MLflow run."""
        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        return [(run.data.tags.get("clinie.trial", ""), run.info.status) for run in runs]

    def end(self) -> None:
        for name, process in self.drivers.items():
            end_with_children(process)
            shutil.rmtree(self._ray_folder(name), ignore_errors=True)

    @staticmethod
    def _ray_folder(name: str) -> Path:
        return Path("/tmp") / f"clinie-{os.getpid()}-{name}"


@pytest.fixture
def shared(
    postgres: PostgresServer,
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: Callable[[Mapping[str, Any]], Path],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[SharedStudy]:
    database = f"shared{abs(hash(request.node.name)) % 10**8}"
    postgres.create(database)
    monkeypatch.setenv("CLINIE_LEDGER", postgres.url(database))
    space_content["algorithm"] = {"sampler": "random", "scheduler": "none"}
    space_content["space"]["formulation"] = {"token_classification": {"head": "linear"}}
    space_content["space"]["finetuning"] = {"full": {"learning_rate": {"log": [1.0e-3, 1.0e-2]}}}
    space_content["budget"] = request.param
    shared = SharedStudy(tmp_path, postgres.url(database), write_space(space_content), wait_until)
    # The drivers share a SQLite file here, in which MLflow does not create its tables safely in two processes at once.
    MlflowClient(shared.tracking_uri).search_experiments()
    assert not has_study(shared.storage, "small")
    yield shared
    shared.end()


@pytest.mark.parametrize("shared", [{"trials": 2, "epochs": LONG}], indirect=True)
def test_a_driver_takes_up_the_trial_of_a_killed_one_and_obeys_commands(shared: SharedStudy) -> None:
    for name in ("here", "there"):
        shared.start(name)
        shared.wait_for(name, lambda trials: any(trial.epochs for trial in trials))
    study = shared.study
    assert len(study.drivers) == 2
    (own,), (lost,) = shared.list_trials("there"), shared.list_trials("here")
    assert {own.number, lost.number} == {0, 1}
    end_with_children(shared.drivers["here"], signal.SIGKILL)

    # The driver is busy with its own trial, so that the other one waits until it is stopped.
    assert study.control.stop(own.number).decision is not None
    shared.wait_for("there", lambda trials: [t.state for t in trials if t.number == lost.number] == ["running"])
    assert study.drivers == [record.driver for record in study.records if record.number == own.number]
    seen = len(lost.epochs)
    shared.wait_for("there", lambda trials: any(t.number == lost.number and len(t.epochs) > seen for t in trials))

    # Commands reach the search through the database; an added trial is the third and last one.
    study.control.add_budget(trials=1)
    study.control.pause(lost.number)
    shared.wait_for("there", lambda trials: any(t.number == 2 and t.epochs for t in trials))
    study.control.stop(2)
    study.control.resume(lost.number)
    shared.wait_for("there", lambda trials: any(t.number == lost.number and t.state == "running" for t in trials))
    study.control.stop(lost.number)
    assert shared.drivers["there"].wait(timeout=600) == 0, shared.read_log("there")
    assert [(record.number, record.state) for record in study.records] == [(0, "pruned"), (1, "pruned"), (2, "pruned")]
    assert not study.is_running
    assert {status for _, status in shared.list_runs()} == {"FINISHED"}
    assert sorted(trial for trial, _ in shared.list_runs()) == ["", "0", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [{"trials": TRIALS, "epochs": EPOCHS, "checkpoints": 1}], indirect=True)
def test_the_budget_is_right_after_the_end_of_a_driver(shared: SharedStudy) -> None:
    shared.start("here")
    shared.start("there")
    shared.wait_for("here", lambda trials: any(trial.epochs for trial in trials))
    shared.wait_for("there", lambda trials: any(trial.epochs for trial in trials))
    assert len(find_drivers("small", shared.storage)) == 2
    shared.wait_for("here", lambda trials: any(t.state == "running" and t.epochs for t in trials))
    end_with_children(shared.drivers["here"], signal.SIGKILL)
    before = {record.number: record for record in shared.list_trials("here")}
    assert shared.drivers["there"].wait(timeout=600) == 0, shared.read_log("there")

    study = shared.study
    records = study.records
    assert [record.number for record in records] == list(range(TRIALS))
    assert {record.state for record in records} == {"complete"}
    assert all(len(record.epochs) == EPOCHS for record in records)
    digests = [record.config.digest() for record in records if record.config is not None]
    assert len(set(digests)) == TRIALS
    moved = [number for number, record in before.items() if record.state == "running"]
    for record in records:
        assert (record.number in before) == (str(shared.drivers["here"].pid) in str(record.driver)) or (
            record.number in moved
        )
    assert not study.is_running

    client = MlflowClient(shared.tracking_uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["clinie.trial"]: run for run in runs if "clinie.trial" in run.data.tags}
    (parent,) = [run for run in runs if run.data.tags["clinie.kind"] == "study"]
    assert len(runs) == TRIALS + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.metrics["trials/complete"] == TRIALS
    for record in records:
        run = children[str(record.number)]
        assert run.info.run_id == record.run_id
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "dev/strict_f1")]
        assert steps == list(range(1, EPOCHS + 1))
    models = client.search_logged_models([experiment.experiment_id])
    best = study.best
    assert best is not None
    assert [model.source_run_id for model in models] == [best.run_id]
    assert not list((shared.home("there").study_folder("small") / "trials").glob("*"))
