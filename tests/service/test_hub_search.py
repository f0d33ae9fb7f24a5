"""A space with backbones from the Hub: faults of all repositories at once, and a commit for the whole study."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource
from tests.conftest import TINY, RunClinie
from tests.faults.searches import POINTS, run
from tests.hub_server import HubServer, Repository

WriteSpace = Callable[[Mapping[str, Any]], Path]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A Hub with a sound repository, a gated one and one with pickled weights only."""
    tokenizer = load_tokenizer(BackboneSource(name="tiny", scratch=TINY))
    sizes = {key: value for key, value in TINY.items() if key != "model_type"}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "files")
    tokenizer.save_pretrained(tmp_path / "files")
    files = {file.name: file.read_bytes() for file in (tmp_path / "files").iterdir()}
    pickled = {"config.json": b"{}", "vocab.txt": b"", "pytorch_model.bin": b""}
    server = HubServer(
        {
            "clinic/tiny": Repository(files),
            "clinic/gated": Repository(files, gated=True),
            "clinic/old": Repository(pickled),
        }
    )
    yield server
    server.close()


def test_the_driver_reports_all_repositories_and_reads_one_commit(
    hub: HubServer, clinie: RunClinie, write_space: WriteSpace, space_content: dict[str, Any], tmp_path: Path
) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    backbones = ["clinic/tiny", "clinic/gated", "clinic/old", "clinic/none"]
    space = write_space({**space_content, "space": {**space_content["space"], "backbone": {"choose": backbones}}})
    result = clinie("plan", space, **environment)
    assert result.returncode == 2
    errors = result.stderr.splitlines()
    assert len(errors) == 3, result.stderr
    for line, expected in zip(errors, ("is restricted; accept", "as pickle files only", "no public rep"), strict=True):
        assert expected in line
    result = clinie("plan", space, "space.backbone=clinic/tiny", **environment)
    assert result.returncode == 0, result.stderr
    resolved = {request.split("/")[4] for request in hub.requests if "/clinic/tiny/resolve/" in request}
    assert resolved == {hub.repositories["clinic/tiny"].commit}  # no file of a branch


def test_fetched_backbones_replace_the_hub(
    hub: HubServer, clinie: RunClinie, write_space: WriteSpace, space_content: dict[str, Any], tmp_path: Path
) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    space = write_space({**space_content, "space": {**space_content["space"], "backbone": "clinic/tiny"}})
    folder = tmp_path / "backbones"
    refused = clinie("backbones", "fetch", space, "space.backbone=clinic/gated", "--to", folder, **environment)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "access to repository clinic/gated is restricted; accept its licence" in line
    done = clinie("backbones", "fetch", space, "--to", folder, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "licence mit, not gated" in done.stdout
    hub.close()

    offline = {**environment, "HF_HOME": str(tmp_path / "other"), "CLINIE_BACKBONES": str(folder)}
    planned = clinie("plan", space, "--json", **offline)
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["warnings"] == []
    missing = clinie("search", space, "space.backbone=clinic/other", "--home", tmp_path / "home", **offline)
    assert missing.returncode == 2
    (line,) = missing.stderr.splitlines()
    assert f"nor in {folder}, and the Hub is unreachable" in line
    assert "fetch it on a connected machine with `clinie backbones fetch SPACE --to" in line

    assert json.loads(clinie("backbones", "verify", folder, "--json").stdout)["backbones"] == 1
    (weights,) = folder.rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-5])
    damaged = clinie("backbones", "verify", folder)
    assert damaged.returncode == 2
    assert "model.safetensors: the file has" in damaged.stderr


def list_resolved(requests: list[str]) -> set[str]:
    """Return the revisions whose files were requested."""
    return {request.split("/")[4] for request in requests if "/clinic/tiny/resolve/" in request}


def test_a_resumed_study_keeps_its_commit_after_the_branch_has_moved(
    hub: HubServer, write_space: WriteSpace, space_content: dict[str, Any], tmp_path: Path
) -> None:
    budget = {"trials": 2, "epochs": 1}
    space = write_space(
        {**space_content, "budget": budget, "space": {**space_content["space"], "backbone": "clinic/tiny"}}
    )
    home, signs, repository = tmp_path / "home", tmp_path / "signs", hub.repositories["clinic/tiny"]
    signs.mkdir()
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    fault = {**POINTS["before the first epoch"], "victim": "driver", "folder": str(signs)}
    killed = run(["search", str(space)], home, fault, HF_HOME=str(tmp_path / "first"), **environment)
    assert killed.returncode < 0, killed.stderr
    pinned = repository.commit
    assert list_resolved(hub.requests) == {pinned}

    repository.move_main({**repository.files, "model.safetensors": b"not a backbone", "README.md": b"retrained"})
    assert repository.commit != pinned
    hub.requests.clear()
    # An empty cache, as on another node: the weights are downloaded again.
    study = str(space_content["study"])
    resumed = run(["resume", study, "--json"], home, None, HF_HOME=str(tmp_path / "second"), **environment)
    assert resumed.returncode == 0, resumed.stderr
    assert [trial["state"] for trial in read_trials(home, study)] == ["complete", "complete"]
    assert list_resolved(hub.requests) == {pinned}


def read_trials(home: Path, study: str) -> list[dict[str, Any]]:
    status = run(["status", study, "--json"], home, None)
    found: list[dict[str, Any]] = json.loads(status.stdout)["trials"]
    return found
