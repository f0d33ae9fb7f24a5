"""Hashed ids: no message names a document or a file; the hashes are stable, keyed and equal for id and file."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.loading import CorpusSource, load_corpus
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.errors import InputError, Problem
from clinie_core.inference.notes import find_notes, read_notes
from clinie_core.shown_ids import hash_ids, hide_file_names, read_key, register_files, show_id
from tests.core.test_corpus_fuzz import MUTATIONS
from tests.corpora import WRITABLE

PATIENT = "smith19700412"
WORD = "Zyxomycosis"
FORMATS_WITH_IDS = [name for name in WRITABLE if name != "hf_dataset"]


@pytest.fixture
def hashed() -> Iterator[None]:
    hash_ids(b"key")
    yield
    hash_ids(None)


def damage(format_: str, folder: Path, seed: int) -> None:
    """Write a corpus whose ids contain a patient's name, and damage one of its files."""
    draw = random.Random(seed)
    notes = generate_splits(12, seed=2)["train"][:3]
    named = [replace(n, id=f"{PATIENT}-{number}", text=f"{n.text} {WORD}") for number, n in enumerate(notes)]
    FORMATS.load(format_)().write(named, folder)
    file = draw.choice(sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size))
    file.write_bytes(draw.choice(MUTATIONS)(file.read_bytes(), draw))


def collect_messages(format_: str, folder: Path) -> list[str]:
    return [str(item) for item in FORMATS.load(format_)().read(folder) if isinstance(item, Problem)]


@pytest.mark.parametrize("format_", FORMATS_WITH_IDS)
def test_messages_about_damaged_files_name_no_document(format_: str, tmp_path: Path) -> None:
    plain, hashed = [], []
    for seed in range(40):
        damage(format_, tmp_path, seed)
        plain += collect_messages(format_, tmp_path)
        hash_ids(b"key")
        try:
            hashed += collect_messages(format_, tmp_path)
        finally:
            hash_ids(None)
        shutil.rmtree(tmp_path)
    assert len(plain) == len(hashed) > 0
    assert not [message for message in hashed if PATIENT in message]
    if FORMATS.load(format_).one_document_per_file:
        assert any(PATIENT in message for message in plain)
        assert any(show_id_with_key(f"{PATIENT}-0") in message for message in hashed)


@pytest.mark.parametrize("format_", FORMATS_WITH_IDS)
def test_messages_about_damaged_files_quote_no_text(format_: str, tmp_path: Path) -> None:
    planted = 0
    for seed in range(40):
        damage(format_, tmp_path, seed)
        contents = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        planted += WORD.encode() in contents
        assert not [message for message in collect_messages(format_, tmp_path) if WORD in message]
        shutil.rmtree(tmp_path)
    assert planted > 0 or format_ == "docbin", "no file contains the word"  # docbin is compressed


def show_id_with_key(id_: str) -> str:
    hash_ids(b"key")
    try:
        return show_id(id_)
    finally:
        hash_ids(None)


@pytest.mark.usefixtures("hashed")
def test_a_file_in_folders_and_its_id_have_the_same_hash(tmp_path: Path) -> None:
    file = tmp_path / "train" / PATIENT / "visit.ann"
    file.parent.mkdir(parents=True)
    file.with_suffix(".txt").write_text("Fever.", encoding="utf-8")
    file.write_text("T1\tProblem 0 99\tfever\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_corpus(CorpusSource(path=str(tmp_path), format="brat"))
    assert f"{tmp_path}/train/{show_id(f'{PATIENT}/visit')}.ann:1: " in str(caught.value)
    assert re.fullmatch("id-[0-9a-f]{12}/id-[0-9a-f]{12}", show_id(f"{PATIENT}/visit"))


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("content", ["a\n\nb", ""])
def test_lists_and_repeated_documents_name_no_id(tmp_path: Path, content: str) -> None:
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{PATIENT}.txt").write_text(f"Fever {content}.", encoding="utf-8")
        (tmp_path / split / f"{PATIENT}.ann").write_text("T1\tProblem 0 5\tFever\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"document {show_id(PATIENT)} is also in train"):
        load_corpus(CorpusSource(path=str(tmp_path), format="brat", splits={"train": "train", "dev": "dev"}))
    (tmp_path / "few.list").write_text(f"{PATIENT}-absent\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"there is no document {show_id(f'{PATIENT}-absent')}"):
        load_corpus(CorpusSource(path=str(tmp_path), format="brat", splits={"train": "few.list"}))


@pytest.mark.usefixtures("hashed")
def test_a_name_that_contains_another_one_is_hidden_whole(tmp_path: Path) -> None:
    register_files([tmp_path / name for name in ("a.txt", "smith-a.txt", "mith-a.txt", "1.txt")], tmp_path)
    for text in (f"{tmp_path}/smith-a.txt:3", "the text smith-a.txt", "the text smith-a.ann is missing"):
        assert "mith" not in hide_file_names(text)
    assert hide_file_names("line 1: offsets 1:12 of 11 characters") == "line 1: offsets 1:12 of 11 characters"


@pytest.mark.usefixtures("hashed")
def test_notes_for_prediction_are_hashed(tmp_path: Path) -> None:
    note = tmp_path / f"{PATIENT}.txt"
    note.write_bytes(b"\xff")
    with pytest.raises(InputError) as caught:
        read_notes(find_notes([note]))
    assert str(caught.value).startswith(f"{tmp_path}/{show_id(PATIENT)}.txt: ")


def test_the_key_is_private_and_permanent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    key = read_key()
    assert key == read_key()
    assert len(key) == 64
    assert (tmp_path / "config" / "clinie" / "ids-key").stat().st_mode & 0o777 == 0o600
    assert show_id(PATIENT) == PATIENT
    shown = []
    for other in (b"one", b"two", b"one"):
        hash_ids(other)
        shown.append(show_id(PATIENT))
    hash_ids(None)
    assert shown[0] == shown[2] != shown[1]
