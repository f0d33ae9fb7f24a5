"""Fetched backbones: download from a server with the Hub's API, use without a network, and copies on a node."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clinie_core.backbones.fetching import fetch_backbones
from clinie_core.backbones.hub import HubReader
from clinie_core.backbones.integrity import check_backbone
from clinie_core.backbones.manifest import FetchedBackbone, Manifest, find_fetched
from clinie_core.backbones.network import describe_outage
from clinie_core.backbones.node_cache import copy_to_node
from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError
from tests.core.test_hub import hub as hub  # noqa: PLC0414  # fixtures
from tests.core.test_hub import make_files
from tests.core.test_hub import tiny_files as tiny_files  # noqa: PLC0414
from tests.hub_server import TOKEN, HubServer, Repository

NAME = "clinic/model"
SOURCE = BackboneSource(name="model", hub=NAME)


def fetch(folder: Path, *sources: BackboneSource) -> list[FetchedBackbone]:
    return list(fetch_backbones(sources or (SOURCE,), folder, "space.backbone"))


@pytest.fixture
def fetched(
    hub: HubServer, tiny_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FetchedBackbone:
    """A tiny model that was fetched; afterwards the Hub is closed, and processes use the folder."""
    hub.repositories[NAME] = Repository({**tiny_files, "LICENSE": b"terms", "notes.txt": b"", "onnx/model.onnx": b""})
    (backbone,) = fetch(tmp_path / "backbones")
    hub.repositories.clear()
    monkeypatch.setenv("CLINIE_BACKBONES", str(tmp_path / "backbones"))
    monkeypatch.setenv("CLINIE_CACHE", str(tmp_path / "cache"))
    return backbone


def test_only_weights_tokenizer_configuration_and_licence_are_fetched(fetched: FetchedBackbone, tmp_path: Path) -> None:
    folder = tmp_path / "backbones" / fetched.key
    assert {file.name for file in folder.iterdir()} == set(fetched.files)
    assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"} <= set(fetched.files)
    assert not {"notes.txt", "onnx/model.onnx"} & set(fetched.files)
    assert (fetched.licence, fetched.gated) == ("mit", False)
    assert list(Manifest.read(tmp_path / "backbones", "FOLDER").check(tmp_path / "backbones")) == []


def test_a_fetched_backbone_replaces_the_hub(fetched: FetchedBackbone, tmp_path: Path) -> None:
    pinned = HubReader().pin(SOURCE, "space.backbone")
    assert pinned.revision == fetched.commit
    check_backbone(pinned)
    assert load_tokenizer(pinned).is_fast
    model = load_model(pinned)
    assert model.config.hidden_size == 16
    copy = tmp_path / "cache/backbones" / fetched.key
    assert {file.name for file in copy.iterdir()} == set(fetched.files)


def test_a_backbone_that_was_not_fetched_is_one_line(
    fetched: FetchedBackbone, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (BackboneSource(name="b", hub="clinic/other"), SOURCE.model_copy(update={"revision": "0" * 40})):
        with pytest.raises(InputError, match="clinie backbones fetch SPACE --to") as caught:
            HubReader().pin(source, "space.backbone")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [("backbones", "is relative; an absolute path"), ("/no/such/folder", "there is no manifest.json")],
)
def test_a_wrong_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setenv("CLINIE_BACKBONES", value)
    with pytest.raises(InputError, match=f"CLINIE_BACKBONES: .*{message}"):
        find_fetched(SOURCE)


def test_a_request_that_breaks_off_is_repeated(hub: HubServer, tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository(dict(tiny_files))
    hub.limits["model.safetensors"] = 1000
    (backbone,) = fetch(tmp_path)
    assert (tmp_path / backbone.key / "model.safetensors").read_bytes() == tiny_files["model.safetensors"]


def test_a_fetch_continues_after_an_interruption(hub: HubServer, tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    other = BackboneSource(name="other", hub="clinic/other")
    hub.repositories |= {NAME: Repository(dict(tiny_files)), "clinic/other": Repository(dict(tiny_files))}
    running = fetch_backbones([SOURCE, other], tmp_path, "space.backbone")
    next(running)
    lost = hub.repositories.pop("clinic/other")
    with pytest.raises(InputError, match=r"clinic/other/\S+: the download failed .*; run the command again"):
        next(running)
    assert [backbone.name for backbone in Manifest.read(tmp_path, "FOLDER").backbones] == [NAME]
    hub.repositories["clinic/other"] = lost
    hub.requests.clear()
    assert {backbone.name for backbone in fetch(tmp_path, SOURCE, other)} == {NAME, "clinic/other"}
    assert not any(f"GET /{NAME}/resolve/" in request for request in hub.requests)


def test_a_second_fetch_downloads_only_what_is_missing(
    hub: HubServer, tiny_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repositories[NAME] = Repository(dict(tiny_files))
    user = BackboneSource(name="user", hub="clinic/user", tokenizer=SOURCE)
    hub.repositories["clinic/user"] = Repository(dict(tiny_files))
    first = {backbone.name: backbone for backbone in fetch(tmp_path, user)}
    assert "model.safetensors" not in first[NAME].files  # only its tokenizer is needed
    hub.requests.clear()
    (second,) = fetch(tmp_path)
    downloads = {request.rpartition("/")[2] for request in hub.requests if "GET" in request and "/resolve/" in request}
    assert "model.safetensors" in downloads
    assert "tokenizer.json" not in downloads
    assert {backbone.name for backbone in Manifest.read(tmp_path, "FOLDER").backbones} == {NAME, "clinic/user"}
    assert second.files.items() > first[NAME].files.items()


def test_faults_are_reported_before_the_first_download(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["clinic/gated"] = Repository(make_files("model.safetensors", "tokenizer.json"), gated=True)
    hub.repositories["clinic/old"] = Repository(make_files("pytorch_model.bin", "vocab.txt"))
    gated, old = (BackboneSource(name=name, hub=f"clinic/{name}") for name in ("gated", "old"))
    with pytest.raises(InputError) as caught:
        fetch(tmp_path / "folder", gated, old)
    first, second = str(caught.value).splitlines()
    assert "access to repository clinic/gated is restricted; accept its licence" in first
    assert "pickle files only" in second
    assert not (tmp_path / "folder").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (backbone,) = fetch(tmp_path / "folder", gated)
    assert backbone.gated
    assert TOKEN not in (tmp_path / "folder/manifest.json").read_text()


def test_a_fetch_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert describe_outage() == "HF_HUB_OFFLINE is set"
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set; run the command on a machine with access"):
        fetch(tmp_path)


def test_verification_names_each_faulty_file(fetched: FetchedBackbone, tmp_path: Path) -> None:
    folder = tmp_path / "backbones"
    own = folder / fetched.key
    weights = own / "model.safetensors"
    (own / "config.json").unlink()
    (own / "tokenizer.json").write_bytes((own / "tokenizer.json").read_bytes()[:-1])
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (own / "more.txt").touch()
    problems = {problem.where: problem.found for problem in Manifest.read(folder, "FOLDER").check(folder)}
    assert set(problems) == {
        f"{fetched.key}/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors", "more.txt")
    }
    assert problems[f"{fetched.key}/config.json"] == "the file is missing"
    assert problems[f"{fetched.key}/model.safetensors"] == "the sha256 differs"
    assert " bytes" in problems[f"{fetched.key}/tokenizer.json"]
    assert problems[f"{fetched.key}/more.txt"] == "the file is not in the manifest"


def test_a_node_reads_shared_storage_once(fetched: FetchedBackbone, tmp_path: Path) -> None:
    shared = tmp_path / "backbones" / fetched.key
    script = (
        "import sys; from pathlib import Path; from clinie_core.backbones.manifest import Manifest\n"
        "from clinie_core.backbones.node_cache import copy_to_node\n"
        "folder = Path(sys.argv[1]); entry = Manifest.read(folder, '').backbones[0]\n"
        "print(copy_to_node(folder / entry.key, entry))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "backbones")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    copies = {process.communicate(timeout=60)[0].strip() for process in running}
    assert copies == {str(tmp_path / "cache/backbones" / fetched.key)}
    assert stat.S_IMODE((tmp_path / "cache/backbones").stat().st_mode) == 0o700
    (shared / "model.safetensors").unlink()
    assert str(copy_to_node(shared, fetched)) in copies


def test_a_damaged_file_on_shared_storage_is_not_copied(fetched: FetchedBackbone, tmp_path: Path) -> None:
    shared = tmp_path / "backbones" / fetched.key
    (shared / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model.safetensors: the sha256 differs from the manifest; run `clinie"):
        copy_to_node(shared, fetched)
    assert not (tmp_path / "cache/backbones" / fetched.key).exists()


def write_backbone(folder: Path, name: str, size: int) -> FetchedBackbone:
    """Write a folder with one file as a fetched backbone."""
    from clinie_core.backbones.manifest import FetchedFile, compute_sha256

    entry = FetchedBackbone(name=name, commit="0" * 40, files={})
    (folder / entry.key).mkdir()
    file = folder / entry.key / "model.safetensors"
    file.write_bytes(name.encode() * size)
    return entry.model_copy(
        update={"files": {file.name: FetchedFile(size=file.stat().st_size, sha256=compute_sha256(file))}}
    )


def test_the_least_recently_used_copy_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLINIE_BACKBONES_CACHE", "2.5MB")
    in_use: dict[str, Any] = {}
    monkeypatch.setattr("clinie_core.backbones.node_cache._in_use", in_use)
    entries = {name: write_backbone(tmp_path, name, 1_000_000) for name in "abcd"}

    def use(name: str) -> Path:
        return copy_to_node(tmp_path / entries[name].key, entries[name])

    def end_processes() -> None:
        while in_use:
            in_use.popitem()[1].close()

    first, second = use("a"), use("b")
    end_processes()
    use("a")
    end_processes()
    use("c")
    assert first.is_dir()
    assert not second.exists()
    use("a")
    assert use("d") == tmp_path / entries["d"].key  # both copies are in use: shared storage is read directly
    end_processes()
    assert use("d").parent == tmp_path / "cache/backbones"
    monkeypatch.setenv("CLINIE_BACKBONES_CACHE", "0")
    assert use("d") == tmp_path / entries["d"].key


def test_a_wrong_limit_is_one_line(fetched: FetchedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIE_BACKBONES_CACHE", "much")
    with pytest.raises(InputError, match="CLINIE_BACKBONES_CACHE: 'much' is no size; a size such as 200GB"):
        copy_to_node(tmp_path / "backbones" / fetched.key, fetched)


def test_a_manifest_states_what_was_fetched(fetched: FetchedBackbone, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "backbones/manifest.json").read_text())
    (entry,) = content["backbones"]
    assert entry["name"] == NAME
    assert entry["commit"] == fetched.commit
    assert len(entry["files"]["model.safetensors"]["sha256"]) == 64
