"""Repositories on the Hub are inspected before a search, with real requests to a server with the Hub's API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants, hf_hub_download
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from clinie_core.backbones.hub import HubReader
from clinie_core.backbones.integrity import pin_weights
from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError
from search.config.domains import RandomChooser
from search.config.space_file import SpaceFile
from search.config.validation import validate_space_file
from tests.hub_server import TOKEN, HubServer, Repository

CONFIG = json.dumps({"model_type": "bert", "hidden_size": 8}).encode()
NAMES = ("model.safetensors", "tokenizer.json")
SHARDS = tuple(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def make_files(*names: str, config: bytes = CONFIG) -> dict[str, bytes]:
    return {"config.json": config, **dict.fromkeys(names, b"{}")}


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a tiny encoder that can be loaded."""
    folder = tmp_path_factory.mktemp("tiny")
    scratch = BackboneSource(name="tiny", scratch={"model_type": "bert"})
    tokenizer = load_tokenizer(scratch)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer({})
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()
    yield server
    server.close()
    close_session()


def download(hub: HubServer, name: str, revision: str | None = None) -> None:
    """Download all files; transformers would use the address of the first Hub that it has contacted."""
    for file in hub.repositories[name].files:
        hf_hub_download(name, file, revision=revision)


def pin(name: str = "clinic/model", **values: Any) -> BackboneSource:
    return HubReader().pin(BackboneSource(**{"name": name, "hub": name, **values}), "space.backbone")


REMOTE_CODE = json.dumps({"model_type": "homemade", "auto_map": {"AutoModel": "modeling.Homemade"}}).encode()
FAULTY: dict[str, tuple[Repository, str]] = {
    "gated": (
        Repository(make_files(*NAMES), gated=True),
        "access to repository clinic/model is restricted; accept its licence at http",
    ),
    "private": (
        Repository(make_files(*NAMES), private=True),
        "no public repository 'clinic/model' on the Hub; check the spelling; for a private repository, set HF_TOKEN",
    ),
    "pickled": (
        Repository(make_files("pytorch_model.bin", "vocab.txt")),
        "has weights as pickle files only (pytorch_model.bin); weights in safetensors format;"
        " convert them with `clinie backbones convert clinic/model -o FOLDER`",
    ),
    "pickled-shards": (
        Repository(make_files("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "vocab.txt")),
        "has weights as pickle files only (pytorch_model-00001-of-00002.bin)",
    ),
    "no-config": (Repository(dict.fromkeys(NAMES, b"{}")), "repository clinic/model has no config.json"),
    "broken-config": (Repository(make_files(*NAMES, config=b"[1]")), "config.json is not a JSON object"),
    "no-tokenizer": (Repository(make_files("model.safetensors")), "has no tokenizer.json"),
    "no-weights": (Repository(make_files("tokenizer.json", "tf_model.h5")), "has no model.safetensors; weights in"),
    "adapter": (
        Repository(make_files("tokenizer.json", "adapter_config.json", "adapter_model.safetensors")),
        "it is an adapter: use its base model",
    ),
    "gguf": (Repository(make_files("tokenizer.json", "q4.gguf")), "set folder and gguf under backbones:"),
    "missing-shard": (
        Repository(make_files("tokenizer.json", "model.safetensors.index.json", SHARDS[0])),
        "has 1 of 2 weight files",
    ),
    "code": (
        Repository(make_files(*NAMES, config=REMOTE_CODE)),
        "its architecture is Python code in the repository, which is not executed",
    ),
}


@pytest.mark.parametrize("case", list(FAULTY))
def test_a_faulty_repository_is_reported_in_one_line(hub: HubServer, case: str) -> None:
    repository, expected = FAULTY[case]
    hub.repositories["clinic/model"] = repository
    with pytest.raises(InputError) as caught:
        pin()
    assert expected in str(caught.value)
    assert str(caught.value).startswith("space.backbone: backbone 'clinic/model'")
    assert "\n" not in str(caught.value)


def test_all_missing_files_of_a_repository_are_reported_together(hub: HubServer) -> None:
    hub.repositories["clinic/model"] = Repository({"README.md": b""})
    with pytest.raises(InputError) as caught:
        pin()
    assert [problem.found.rpartition(" has ")[2] for problem in caught.value.problems] == [
        "no config.json",
        "no model.safetensors",
        "no tokenizer.json, nor other files of a fast tokenizer",
    ]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("clinic/missing", {}, "no public repository 'clinic/missing' on the Hub"),
        ("a/b/c", {}, "is neither a local folder nor the name of a repository; NAME or OWNER/NAME"),
        ("clinic/model", {"revision": "v9"}, "has no revision 'v9'; a commit, branch or tag"),
    ],
    ids=["missing", "name", "revision"],
)
def test_a_wrong_name_or_revision_is_reported(hub: HubServer, name: str, values: dict[str, str], expected: str) -> None:
    hub.repositories["clinic/model"] = Repository(make_files(*NAMES))
    with pytest.raises(InputError, match=expected):
        pin(name, **values)


@pytest.mark.parametrize("repository", [Repository(gated=True), Repository(private=True)], ids=["gated", "private"])
def test_a_token_gives_access(hub: HubServer, monkeypatch: pytest.MonkeyPatch, repository: Repository) -> None:
    repository.files.update(make_files(*NAMES))
    hub.repositories["clinic/model"] = repository
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pin().revision == repository.commit
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(InputError, match="the Hub rejects the token; correct HF_TOKEN"):
        pin(revision="main")


@pytest.mark.parametrize(
    "names",
    [NAMES, ("model.safetensors", "vocab.txt"), ("tokenizer.json", "model.safetensors.index.json", *SHARDS)],
    ids=["single", "vocabulary", "shards"],
)
def test_a_sound_repository_is_pinned_to_its_commit(hub: HubServer, names: tuple[str, ...]) -> None:
    hub.repositories["clinic/model"] = Repository(make_files(*names))
    assert pin(revision="main").revision == pin().revision == hub.repositories["clinic/model"].commit


def test_pickled_weights_and_a_foreign_tokenizer_can_be_allowed(hub: HubServer) -> None:
    hub.repositories["clinic/model"] = Repository(make_files("pytorch_model.bin"))
    hub.repositories["clinic/words"] = Repository({"tokenizer.json": b"{}"})
    tokenizer = BackboneSource(name="words", hub="clinic/words")
    pinned = pin(allow_pickle=True, tokenizer=tokenizer)
    assert pinned.tokenizer is not None
    assert pinned.tokenizer.revision == hub.repositories["clinic/words"].commit


def test_a_pinned_backbone_is_the_same_after_the_repository_changed(
    hub: HubServer, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = hub.repositories["clinic/model"] = Repository(dict(tiny_files))
    pinned = pin()
    download(hub, "clinic/model", pinned.revision)
    repository.files["README.md"] = b"another commit"
    sent = len(hub.requests)
    assert pin(revision=pinned.revision) == pinned
    assert hub.requests[sent:] == []  # a complete copy in the cache needs no request
    assert pin().revision == repository.commit != pinned.revision
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "model.safetensors").write_bytes(tiny_files["model.safetensors"])
    expected = load_file(tmp_path / "model.safetensors")
    assert all((expected[name] == tensor).all() for name, tensor in load_model(pinned).state_dict().items())
    assert load_tokenizer(pinned).is_fast
    assert list(pin_weights(pinned).sha256) == ["model.safetensors"]


@pytest.mark.parametrize("reason", ["offline", "refused"])
def test_the_local_cache_replaces_an_unavailable_hub(
    hub: HubServer, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    hub.repositories["clinic/model"] = Repository(dict(tiny_files))
    hub.repositories["clinic/part"] = Repository(make_files(*NAMES))
    download(hub, "clinic/model")
    pin("clinic/part", revision="main")  # downloads config.json
    if reason == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert pin().revision == hub.repositories["clinic/model"].commit
    with pytest.raises(InputError, match="'clinic/missing' is neither a local folder nor in the local cache, and"):
        pin("clinic/missing")
    with pytest.raises(InputError, match=r"in the local cache has no model\.safetensors; .*; download it once with"):
        pin("clinic/part", revision=hub.repositories["clinic/part"].commit)


def test_an_unreachable_hub_receives_one_request(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = HubReader()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"the Hub is unreachable \(Connection refused\); check the spelling"):
        reader.pin(BackboneSource(name="a", hub="clinic/a"), "space.backbone")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    with pytest.raises(InputError, match=r"the Hub is unreachable \(Connection refused\)"):
        reader.pin(BackboneSource(name="b", hub="clinic/b"), "space.backbone")
    assert hub.requests == []


def test_a_study_records_the_commits_of_its_backbones(
    hub: HubServer, tiny_files: dict[str, bytes], space_content: dict[str, Any]
) -> None:
    repository = hub.repositories["clinic/model"] = Repository(dict(tiny_files))
    content = {**space_content, "space": {**space_content["space"], "backbone": "clinic/model", "window_tokens": 64}}
    validated = validate_space_file(SpaceFile.model_validate(content), "space.yaml")
    commit = repository.commit
    download(hub, "clinic/model", commit)
    repository.files["README.md"] = b"another commit"
    recorded = SpaceFile.model_validate(validated.file.model_dump(mode="json"))  # as the ledger stores it
    again = validate_space_file(recorded, "space.yaml")
    assert [source.revision for source in again.space.backbones] == [commit]
    assert again.space.suggest(RandomChooser(1)).backbone.revision == commit
