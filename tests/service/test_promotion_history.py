"""The history of a registered model detects changed, deleted and inserted entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.promotion.history import History
from search.storage.home import Home
from search.tracking.connection import connect


@pytest.fixture
def history(tmp_path: Path) -> History:
    record = History(connect(Home(tmp_path)), "model")
    for number in range(4):
        record.append("read", {"promotion": f"p{number}", "study": "s", "test_digest": "d", "read": number + 1})
    return record


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
