"""Names and paths of corpora: MLflow and reports show the study's name, and the ledger contains no path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinie_core.errors import InputError
from search.config.space_file import SpaceFile
from search.ledger.first_points import _is_comparable
from search.ledger.stored_space import list_changed_keys, locate_corpora, read_stored_space, store_space
from search.storage.home import Home


def make_space(*corpora: dict[str, Any]) -> SpaceFile:
    content: dict[str, Any] = {"version": 1, "study": "wards", "corpus": list(corpora), "space": {"backbone": "tiny"}}
    return SpaceFile.model_validate(content)


def list_titles(file: SpaceFile) -> list[str]:
    return [source.title for source in file.corpus]


def test_a_corpus_without_a_name_is_called_after_the_study() -> None:
    assert make_space({"path": "/data/mercy-hospital"}).corpus_title == "wards"
    assert make_space({"path": "/data/mercy-hospital", "name": "icu"}).corpus_title == "icu"
    several = make_space({"path": "/data/a"}, {"path": "/data/b", "name": "icu"}, {"path": "/data/c"})
    assert list_titles(several) == ["wards-1", "icu", "wards-3"]
    single = {"version": 1, "study": "wards", "corpus": {"path": "/data/a"}, "space": {}}
    assert SpaceFile.model_validate(single).corpus_title == "wards"
    with pytest.raises(ValueError, match="two corpora are called wards-2"):
        make_space({"path": "/data/a", "name": "wards-2"}, {"path": "/data/b"})


def test_the_ledger_contains_no_path_and_the_home_finds_it(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home", create=True)
    file = make_space({"path": "/data/mercy-hospital"}, {"path": str(home.root / "corpora" / "notes")})
    stored = json.loads(json.dumps({"space": store_space(file, home)}))
    assert "mercy" not in json.dumps(stored)
    assert str(home.root) not in json.dumps(stored)
    assert locate_corpora(read_stored_space(stored), home) == file
    moved = Home((home.root).rename(tmp_path / "moved"))
    paths = [source.path for source in locate_corpora(read_stored_space(stored), moved).corpus]
    assert paths == ["/data/mercy-hospital", str(moved.root / "corpora" / "notes")]


def test_changed_keys_are_named() -> None:
    first = make_space({"path": "/data/a"})
    other = make_space({"path": "/data/b"}).model_copy(update={"space": {"backbone": "tiny", "batch_size": 4}})
    assert list_changed_keys(first, first) == []
    assert list_changed_keys(first, other) == ["corpus", "space.batch_size"]


def test_a_home_without_the_path_names_the_file_to_write(tmp_path: Path) -> None:
    first, second = (Home.open(tmp_path / name, create=True) for name in ("first", "second"))
    stored = {"space": store_space(make_space({"path": "/data/mercy-hospital"}), first)}
    assert list_titles(read_stored_space(stored)) == ["wards"]
    with pytest.raises(InputError, match="has not stored where the corpus wards is; write the path") as caught:
        locate_corpora(read_stored_space(stored), second)
    file = Path(str(caught.value).rpartition(" ")[2])
    file.parent.mkdir()
    file.write_text("/mnt/elsewhere\n", encoding="utf-8")
    assert locate_corpora(read_stored_space(stored), second).corpus[0].path == "/mnt/elsewhere"


def test_the_space_of_an_earlier_version_keeps_paths_and_names(tmp_path: Path) -> None:
    content = make_space({"path": "/data/a", "name": "x"}, {"path": "/data/b", "name": "y"}).model_dump(mode="json")
    for source in content["corpus"]:
        source["name"] = ""
    file = read_stored_space({"space": content})
    assert list_titles(file) == ["a", "b"]
    assert [source.path for source in locate_corpora(file, Home(tmp_path)).corpus] == ["/data/a", "/data/b"]


def test_studies_of_the_same_folder_are_recognized(tmp_path: Path) -> None:
    home = Home.open(tmp_path, create=True)
    new = make_space({"path": "/data/a"})
    for path, comparable in (("/data/a", False), ("/data/b", True)):
        stored = read_stored_space({"space": store_space(make_space({"path": path}), home)})
        assert _is_comparable(stored, new) is comparable
