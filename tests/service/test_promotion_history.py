"""The history of a registered model detects changed, deleted and inserted entries."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from search.cli.main import main
from search.promotion import registry_lock
from search.promotion.history import Head, History
from search.promotion.registry_lock import LOCK_MODEL, lock_registry
from search.promotion.test_set_accesses import count_accesses
from search.storage.home import Home
from search.tracking.connection import connect


@pytest.fixture
def history(tmp_path: Path) -> History:
    record = History(connect(Home(tmp_path)), "model")
    for number in range(4):
        record.append("read", {"promotion": f"p{number}", "study": "s", "test_digest": "d", "read": number + 1})
    return record


def test_the_history_of_another_registry_is_shown_without_a_home_folder(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    command = ["clinie", "history", "model", "--home", str(absent)]
    monkeypatch.setattr("sys.argv", [*command, "--tracking-uri", history.client.tracking_uri])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert "the history is intact" in capsys.readouterr().out
    assert not absent.exists()
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "no folder" in capsys.readouterr().err


def read_history_tags(client: MlflowClient) -> dict[str, str]:
    return {k: v for k, v in client.get_registered_model("model").tags.items() if k.startswith("clinie.history.")}


def test_changed_and_deleted_entries_are_detected(history: History) -> None:
    assert history.find_faults() == []
    assert [entry.number for entry in history.read_entries()] == [1, 2, 3, 4]
    client, tags = history.client, read_history_tags(history.client)

    def find_faults_with(key: str, value: str | None) -> list[str]:
        before = tags[key]
        if value is None:
            client.delete_registered_model_tag("model", key)
        else:
            client.set_registered_model_tag("model", key, value)
        faults = history.find_faults()
        client.set_registered_model_tag("model", key, before)
        assert history.find_faults() == []
        return faults

    second = "clinie.history.000002"
    assert find_faults_with(second, tags[second].replace('"read": 2', '"read": 1')) == ["entry 2 was changed"]
    assert find_faults_with(second, None) == ["entry 2 is missing"]
    assert find_faults_with(second, tags["clinie.history.000003"]) == ["entry 2 is missing"]
    forged = json.loads(tags[second]) | {"kind": "promoted", "content": {"version": "1"}}
    assert "entry 2 was changed" in find_faults_with(second, json.dumps(forged))


def test_versions_and_champions_without_an_entry_are_detected(history: History, tmp_path: Path) -> None:
    client = history.client
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    version = client.create_model_version("model", (tmp_path / "model").as_uri()).version
    client.set_registered_model_alias("model", "champion", version)
    assert history.find_unrecorded_versions() == [str(version)]
    assert history.find_faults() == [f"version {version} is champion, but the recorded champion is none"]
    client.delete_registered_model_alias("model", "champion")
    assert history.find_faults() == []


def add_version(history: History, folder: Path) -> str:
    """Register a version without content, recorded in the history, and make it champion."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    version = str(history.client.create_model_version("model", (folder / "model").as_uri()).version)
    entry = history.append("registered", {"promotion": f"v{version}", "version": version})
    history.client.set_model_version_tag("model", version, "clinie.history_digest", entry.digest)
    history.client.set_registered_model_alias("model", "champion", version)
    history.append("promoted", {"promotion": f"v{version}", "version": version})
    return version


def test_a_missing_alias_of_a_recorded_champion_is_a_fault(history: History, tmp_path: Path) -> None:
    version = add_version(history, tmp_path)
    assert history.find_faults() == []
    history.client.delete_registered_model_alias("model", "champion")
    assert history.find_faults() == [f"the alias champion is missing; the recorded champion is version {version}"]
    history.client.delete_model_version("model", version)
    assert "whose version was deleted" in history.find_faults()[-1]


def test_deleted_last_entries_are_detected_by_the_version(history: History, tmp_path: Path) -> None:
    add_version(history, tmp_path)
    entries = history.read_entries()
    for entry in entries[1:]:
        history.client.delete_registered_model_tag("model", f"clinie.history.{entry.number:06d}")
    history.client.delete_registered_model_alias("model", "champion")
    assert f"entry {len(entries)}, which version 1 has recorded, is missing" in history.find_faults()


class Notebook:
    """Anchor in memory."""

    def __init__(self) -> None:
        self.heads: dict[str, Head] = {}
        self.reads: dict[str, int] = {}

    def read_head(self, model: str) -> Head | None:
        return self.heads.get(model)

    def write_head(self, model: str, head: Head) -> None:
        self.heads[model] = head

    def read_test_reads(self, test_digest: str) -> int:
        return self.reads.get(test_digest, 0)

    def write_test_reads(self, test_digest: str, number: int) -> None:
        self.reads[test_digest] = number


def test_a_deleted_history_is_detected_outside_the_registry(tmp_path: Path) -> None:
    history = History(connect(Home(tmp_path)), "model", Notebook())
    history.append("read", {"promotion": "p", "study": "s", "test_digest": "d", "read": 1})
    history.client.delete_registered_model("model")
    assert history.find_faults() == ["entry 1, which the study has recorded, is missing"]
    assert history.append("read", {"promotion": "q", "study": "s", "test_digest": "d", "read": 2}).number == 2


def test_accepted_faults_are_recorded_and_others_are_still_reported(history: History) -> None:
    history.client.delete_registered_model_tag("model", "clinie.history.000002")
    (fault,) = history.find_faults()
    history.append("fault_accepted", {"faults": [fault], "reason": "the tag was removed by mistake"})
    assert history.find_faults() == []
    history.client.delete_registered_model_tag("model", "clinie.history.000003")
    assert history.find_faults() == ["entries 2 to 3 are missing"]


@pytest.mark.parametrize("value", ["", "no JSON", "[]", "{}", '{"number": 3}', '{"extra": 1}', "\ud7ff" * 9])
def test_a_tag_that_is_no_entry_is_a_fault(history: History, value: str) -> None:
    history.client.set_registered_model_tag("model", "clinie.history.000003", value)
    assert history.find_faults()[0] == "entry 3 cannot be read"
    assert [entry.number for entry in history.read_entries()] == [1, 2, 4]
    assert history.append("read", {"test_digest": "d"}).number == 5


def test_the_number_of_reads_survives_the_deletion_of_entries(history: History) -> None:
    assert count_accesses(history.client, "d") == 4
    for number in (1, 2, 3):
        history.client.delete_registered_model_tag("model", f"clinie.history.{number:06d}")
    assert count_accesses(history.client, "d") == 4
    assert count_accesses(history.client, "other") == 0
    assert count_accesses(history.client, "other", recorded=7) == 7


APPEND = """
import sys
from pathlib import Path
from search.cli.main import main
from search.promotion.history import History
from search.promotion.test_set_accesses import count_accesses
from search.storage.home import Home
from search.tracking.connection import connect

home, model, prefix = sys.argv[1:]
client = connect(Home(Path(home)))
print("ready", flush=True)
sys.stdin.readline()
for number in range(6):
    key = f"{prefix}{number}" if prefix else f"shared{number}"
    History(client, model).append_computed(
        "read", key, lambda: {"promotion": key, "test_digest": "t", "read": 1 + count_accesses(client, "t")}
    )
"""


def append_in_processes(home: Path, *arguments: tuple[str, str]) -> None:
    """Append six reads of one test split in each of several processes, at the same time."""
    command = [sys.executable, "-c", APPEND, str(home)]
    processes = [
        subprocess.Popen([*command, *own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for own in arguments
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n")
        assert process.returncode == 0


def test_processes_number_their_reads_of_a_test_split_one_after_another(tmp_path: Path) -> None:
    client = connect(Home(tmp_path))
    append_in_processes(tmp_path, ("a", "x"), ("b", "y"), ("b", "z"))
    entries = History(client, "a").read_entries() + History(client, "b").read_entries()
    assert sorted(entry.content["read"] for entry in entries) == list(range(1, 19))
    assert History(client, "a").find_faults() == History(client, "b").find_faults() == []


def test_a_promotion_that_runs_twice_at_once_is_recorded_once(tmp_path: Path) -> None:
    client = connect(Home(tmp_path))
    append_in_processes(tmp_path, ("a", ""), ("a", ""))
    assert [entry.content["read"] for entry in History(client, "a").read_entries()] == [1, 2, 3, 4, 5, 6]


def test_the_registry_lock_does_not_depend_on_the_clock(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_lock, "WAIT_SECONDS", 0.0)
    client = history.client
    with lock_registry(client):
        holder = json.loads(client.get_registered_model(LOCK_MODEL).description)
        # The clock of the process that waits is a day behind, so that the lock comes from the future.
        with sqlite3.connect(client.tracking_uri.removeprefix("sqlite:///")) as session:
            changed = "UPDATE registered_models SET creation_time = creation_time + 86400000 WHERE name = ?"
            session.execute(changed, (LOCK_MODEL,))
        session.close()
        with (
            pytest.raises(registry_lock.RegistryLocked, match=f"locked by process {holder['pid']} on "),
            lock_registry(client),
        ):
            pass
    boot = psutil.boot_time()
    assert holder["started"] < boot, "the start is a time of day, which changes with the clock"
    with lock_registry(client):
        pass


def test_the_lock_of_a_killed_process_is_removed(history: History, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from search.storage.home import Home;"
        "from search.tracking.connection import connect; from search.promotion.registry_lock import lock_registry\n"
        "with lock_registry(connect(Home(Path(sys.argv[1])))): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    assert history.client.get_registered_model(LOCK_MODEL).name == LOCK_MODEL
    with lock_registry(history.client):
        pass
    assert history.client.search_registered_models(f"name = '{LOCK_MODEL}'") == []
