"""A search writes no word of a note anywhere, however it ends: a unique word in each note is searched for.

The names of the corpus folder and of its files contain unique words, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from tests.faults.searches import find_processes
from tests.text_scan import find_words

INJECT = Path(__file__).with_name("inject")
READING = {"at": "clinie_core.inference.prediction:_strip_annotations", "after": False, "count": 3, "victim": ""}


@dataclass(frozen=True)
class Planted:
    """A corpus whose notes each hold a unique word.

    Args:
        folder: Folder of the corpus.
        canaries: The words in the notes.
        names: The words in the names of the folder and of its files.
    """

    folder: Path
    canaries: frozenset[bytes]
    names: frozenset[bytes]


@dataclass(frozen=True)
class Searched:
    """Output of a search, and the folders that it wrote to."""

    printed: str
    code: int
    folders: tuple[Path, ...]

    def leaks(self, planted: Planted) -> set[str]:
        """Return the places where a word of a note was found: paths of files, and ``printed`` for the output."""
        return find_words(planted.canaries, self.folders, self.printed)

    def named(self, planted: Planted) -> set[str]:
        """Return the places that name the corpus or its files, except the files that store the path of the corpus."""
        found = find_words(planted.names, self.folders, self.printed)
        return {place for place in found if Path(place).parent.name != "corpus-paths"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    names = frozenset(f"zn{uuid.uuid4().hex[:14]}" for _ in range(2))
    in_folder, in_files = sorted(names)
    folder, canaries = tmp_path_factory.mktemp("planted") / in_folder, []
    for split, notes in generate_splits(20, seed=3).items():
        Brat().write([replace(note, id=f"{in_files}-{note.id}") for note in notes], folder / split)
        for file in sorted((folder / split).glob("*.txt")):
            canary = f"zq{uuid.uuid4().hex[:14]}"
            canaries.append(canary.encode())
            with file.open("a", encoding="utf-8", newline="") as note:
                note.write(f" Seen by {canary}.")
    return Planted(folder, frozenset(canaries), frozenset(name.encode() for name in names))


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="clinie-ray-"))  # a socket's path must be short
    yield folder
    shutil.rmtree(folder)


def search(planted: Planted, place: Path, ray_folder: Path, fault: dict[str, Any] | None, *options: str) -> Searched:
    scratch = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    space = {
        "version": 1,
        "study": "canaries",
        "corpus": {"path": str(planted.folder)},
        "budget": {"trials": 1, "epochs": 2},
        "resources": {"concurrent_trials": 1},
        "backbones": {"tiny": {"scratch": {**scratch, "intermediate_size": 64}}},
        "space": {"backbone": "tiny", "formulation": "token_classification", "finetuning": "full"},
    }
    space["space"] |= {"window_tokens": 96, "window_overlap": 16}  # type: ignore[operator]
    (place / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    temporary = place / "tmp"
    temporary.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "CLINIE_FAULT_DRIVER"} | {"RAY_TMPDIR": str(ray_folder)}
    env |= {"TMPDIR": str(temporary), "XDG_CONFIG_HOME": str(place), "CLINIE_FAULT_HOME": str(place / "home")}
    if fault is not None:
        signs = place / "signs"
        signs.mkdir()
        env |= {"CLINIE_FAULT": json.dumps({**fault, "folder": str(signs)}), "PYTHONPATH": str(INJECT)}
    command = [sys.executable, "-m", "search.cli", "search", str(place / "space.yaml"), "--home", str(place / "home")]
    done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=600, check=False)
    folders = (place / "home", ray_folder, temporary, Path("/dev/shm"))
    return Searched(done.stdout + done.stderr, done.returncode, folders)


def test_a_search_that_succeeds_writes_no_text(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    done = search(planted, tmp_path, ray_folder, None, "--ids", "hash")
    assert done.code == 0, done.printed
    assert any("logs" in str(file) for file in ray_folder.rglob("*.log")), "there are no Ray logs to search"
    assert done.leaks(planted) == set()
    assert "detected from id-" in done.printed
    assert done.named(planted) == set()


@pytest.mark.slow
def test_a_search_that_is_killed_leaves_no_text(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    fault = {"at": "clinie_core.training.trainer:Trainer._step", "after": True, "count": 3, "victim": "driver"}
    done = search(planted, tmp_path, ray_folder, fault, "--ids", "hash")
    assert done.code == -signal.SIGKILL
    orphans = find_processes(tmp_path / "home")
    for process in orphans:
        process.kill()
    psutil.wait_procs(orphans)
    assert (tmp_path / "home" / "ledger.journal").stat().st_size > 0
    assert done.leaks(planted) == set()
    assert done.named(planted) == set()


def test_each_place_of_the_scan_is_read(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    folders = (tmp_path / "home", ray_folder, tmp_path / "tmp", Path("/dev/shm"))
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for words, find in ((planted.canaries, Searched.leaks), (planted.names, Searched.named)):
            file = folder / f"planted-{uuid.uuid4().hex}"
            file.write_bytes(b"\0before " + min(words).upper() + b" after\n")
            try:
                assert find(Searched("", 0, folders), planted) == {str(file)}
            finally:
                file.unlink()
    word = min(planted.canaries).decode()
    assert Searched(f"error: {word}", 1, folders).leaks(planted) == {"printed"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ValueError", "ValueError at"),
        pytest.param("MemoryError", "out of memory with", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_fails_while_it_reads_a_note_writes_no_text(
    error: str, said: str, planted: Planted, tmp_path: Path, ray_folder: Path
) -> None:
    done = search(planted, tmp_path, ray_folder, {**READING, "raise": error})
    assert done.code == 1
    assert said in done.printed
    assert done.leaks(planted) == set()


def test_the_scan_finds_the_text_of_an_unfiltered_error(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    done = search(planted, tmp_path, ray_folder, {**READING, "raise": "ValueError", "unscrubbed": True})
    assert done.code == 1
    leaks = done.leaks(planted)
    assert "printed" in leaks
    assert any(leak.endswith("ledger.journal") for leak in leaks)
    assert any(leak.endswith("mlflow.db") for leak in leaks)


@pytest.mark.slow
def test_allowed_text_is_written_and_the_run_is_tagged(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    from search.storage.home import Home

    done = search(planted, tmp_path, ray_folder, {**READING, "raise": "ValueError"}, "--allow-text")
    assert "printed" in done.leaks(planted)
    client = MlflowClient(Home(tmp_path / "home").tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("canaries").experiment_id])
    assert {run.data.tags["clinie.text"] for run in runs} == {"allowed"}


def test_a_broken_corpus_is_reported_without_text(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(planted.folder, broken)
    annotations = sorted((broken / "train").glob("*.ann"))[0]
    annotations.write_text("T1\tProblem 999990 999999\tfever\nR1\tnonsense\n", encoding="utf-8")
    done = search(planted, tmp_path, ray_folder, None, f"corpus.path={broken}")
    assert done.code == 2
    assert f"{annotations.name}:1" in done.printed
    shutil.rmtree(tmp_path / "tmp")
    hashed = search(planted, tmp_path, ray_folder, None, f"corpus.path={broken}", "--ids", "hash")
    assert hashed.code == 2
    assert re.search("id-[0-9a-f]{12}.ann:1", hashed.printed)
    assert hashed.named(planted) == set()
    assert not (tmp_path / "home").exists()
    assert done.leaks(planted) == set()
