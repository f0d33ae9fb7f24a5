"""The outbox delivers events in order and exactly once, whatever fails."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from search.storage.home import Home
from search.tracking import outbox as module
from search.tracking.connection import connect
from search.tracking.outbox import Event, Outbox


class Away(Exception):
    """The server is unavailable."""


class Server:
    """A server that accepts events unless it is unavailable; a connection can break after an event was accepted."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.taken: list[int] = []
        self.batches: list[int] = []

    def deliver(self, events: Sequence[Event], again: bool) -> None:
        self.batches.append(len(events))
        for event in events:
            call = self.calls.pop(0) if self.calls else "takes"
            if call == "away":
                raise Away
            if not (again and event["n"] in self.taken):
                self.taken.append(event["n"])
            if call == "cut off":
                raise Away


def outbox(folder: Path, server: Server) -> Outbox:
    return Outbox(folder / "outbox.jsonl", server.deliver, lambda error: isinstance(error, Away))


@settings(deadline=None)
@given(
    calls=st.lists(st.sampled_from(["takes", "away", "cut off"]), max_size=30),
    restarts=st.sets(st.integers(0, 9), max_size=3),
    stale=st.sampled_from([1, 30, 1 << 20]),
    batch=st.integers(1, 4),
)
def test_everything_arrives_once_and_in_order(calls: list[str], restarts: set[int], stale: int, batch: int) -> None:
    pause = patch.object(module, "PAUSE_SECONDS", 0.0)
    sizes = patch.object(module, "STALE_BYTES", stale), patch.object(module, "BATCH_EVENTS", batch)
    with pause, sizes[0], sizes[1], tempfile.TemporaryDirectory() as folder:
        server = Server()
        server.calls = list(calls)
        box = outbox(Path(folder), server)
        for n in range(10):
            if n in restarts:
                box.stop()
                box = outbox(Path(folder), server)
            box.put({"n": n})
        assert box.drain(10)
        box.stop()
        assert server.taken == list(range(10))
        assert max(server.batches) <= batch
        assert list(Path(folder).iterdir()) == []


def test_a_slow_server_delays_no_event_and_the_backlog_arrives_in_batches(tmp_path: Path) -> None:
    server, opened = Server(), threading.Event()

    def deliver(events: Sequence[Event], again: bool) -> None:
        opened.wait(10)
        server.deliver(events, again)

    box = Outbox(tmp_path / "outbox.jsonl", deliver, lambda error: False)
    for n in range(150):
        box.put({"n": n})
    assert len(box) == 150
    opened.set()
    assert box.drain(10)
    box.stop()
    assert server.taken == list(range(150))
    assert len(server.batches) <= 3


def test_a_truncated_line_is_dropped_and_the_next_one_is_complete(tmp_path: Path) -> None:
    server = Server()
    server.calls = ["away"] * 2
    box = outbox(tmp_path, server)
    box.put({"n": 0})
    assert not box.drain(0.1)
    box.stop()
    with (tmp_path / "outbox.jsonl").open("ab") as file:
        file.write(b'{"n": 1')
    server.calls = []
    again = outbox(tmp_path, server)
    again.put({"n": 2})
    assert again.drain(10)
    again.stop()
    assert server.taken == [0, 2]


def test_events_that_the_server_rejects_are_dropped_and_all_reported(tmp_path: Path) -> None:
    server, opened = Server(), threading.Event()

    def deliver(events: Sequence[Event], again: bool) -> None:
        opened.wait(10)
        server.deliver([event for event in events if event["n"] % 4], again)
        for event in events:
            if event["n"] % 4 == 0:
                raise ValueError(f"no run {event['n']}")

    box = Outbox(tmp_path / "outbox.jsonl", deliver, lambda error: False)
    for n in range(6):
        box.put({"n": n})
    opened.set()
    with pytest.raises(ValueError, match="no run 0") as raised:
        box.drain(10)
    assert raised.value.__notes__ == ["another event for MLflow failed: ValueError: no run 4"]
    box.put({"n": 7})
    assert box.drain(10)
    box.stop()
    assert sorted(set(server.taken)) == [1, 2, 3, 5, 7]
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_outbox_itself_is_reported(tmp_path: Path) -> None:
    server = Server()
    box = outbox(tmp_path, server)
    (tmp_path / "outbox.delivered").mkdir()
    box.put({"n": 0})
    with pytest.raises(OSError, match=r"outbox\.delivered"):
        box.drain(10)


WRITER = """
import os, signal, sys, threading
from pathlib import Path
from mlflow.tracking import MlflowClient
from clinie_core.config import TrialConfig
from search.storage.home import Home
from search.tracking.connection import connect
from search.tracking.tracker import StudyFacts, Tracker
from search.trials.result import EpochResult

home, config, kill_at = Home(Path(sys.argv[1])), TrialConfig.model_validate_json(sys.argv[2]), int(sys.argv[3])
accepted, calls = threading.Event(), []

class Client(MlflowClient):
    def __getattribute__(self, name):
        if name in WRITES and threading.current_thread() is not threading.main_thread():
            accepted.wait()
            calls.append(name)
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)

WRITES = ("create_run", "update_run", "log_inputs", "log_batch", "set_terminated")
connect(home)
tracker = Tracker(Client(home.tracking_uri), home, StudyFacts("killed", {}, []), lambda number, places: None)
if kill_at:
    for number in range(TRIALS):
        tracker.begin(number, config, None, {})
        for epoch in (1, 2):
            tracker.on_epoch_end(number, EpochResult(epoch, {"strict_f1": 0.25 * epoch, "train_loss": 1.0}))
        end = {"best": {"strict_f1": 0.5}, "best_epoch": 2, "checkpoint": None, "keep": False}
        tracker.end(number, "complete", config=config, reason=None, **end)
accepted.set()
assert tracker.drain() == 0
tracker.stop()
"""
TRIALS = 3


@pytest.mark.parametrize("kill_at", [2, 5, 8])
def test_a_process_that_is_killed_within_a_batch_loses_and_repeats_nothing(tmp_path: Path, kill_at: int) -> None:
    config = TrialConfig(
        backbone=BackboneSource(name="tiny", scratch={"model_type": "bert", "hidden_size": 32}),
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name="lora", parameters={"learning_rate": 3e-3, "rank": 4}),
        epochs=2,
    )
    program = f"TRIALS = {TRIALS}\n{WRITER}"
    command = [sys.executable, "-c", program, str(tmp_path), config.model_dump_json()]
    killed = subprocess.run([*command, str(kill_at)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "studies" / "killed" / "outbox.jsonl").exists()
    subprocess.run([*command, "0"], check=True)
    assert list((tmp_path / "studies" / "killed").iterdir()) == []
    client = connect(Home(tmp_path))
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.clinie.kind = 'trial'")
    assert sorted(run.data.tags["clinie.trial"] for run in runs) == [str(number) for number in range(TRIALS)]
    for run in runs:
        assert (run.info.status, run.data.tags["clinie.state"]) == ("FINISHED", "complete")
        assert (run.data.params["learning_rate"], run.data.params["rank"]) == ("0.003", "4")
        history = client.get_metric_history(run.info.run_id, "dev/strict_f1")
        assert sorted((m.step, m.value) for m in history) == [(1, 0.25), (2, 0.5)]
