"""A search writes no word of a note anywhere, however it ends: a unique word in each note is searched for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits

INJECT = Path(__file__).with_name("inject")
READING = {"at": "clinie_core.inference.prediction:_strip_annotations", "after": False, "count": 3, "victim": ""}


@dataclass(frozen=True)
class Planted:
    """A corpus whose notes each hold a unique word."""

    folder: Path
    canaries: frozenset[bytes]


@dataclass(frozen=True)
class Searched:
    """Output of a search, and the folders that it wrote to."""

    printed: str
    code: int
    folders: tuple[Path, ...]

    def leaks(self, planted: Planted) -> set[str]:
        """Return the places where a unique word was found: paths of files, and ``printed`` for the output."""
        files = [file for folder in self.folders for file in folder.rglob("*") if file.is_file()]
        found = {str(file) for file in files if any(word in file.read_bytes().lower() for word in planted.canaries)}
        return found | ({"printed"} if any(w in self.printed.lower().encode() for w in planted.canaries) else set())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder, canaries = tmp_path_factory.mktemp("planted"), []
    for split, notes in generate_splits(20, seed=3).items():
        Brat().write(notes, folder / split)
        for file in sorted((folder / split).glob("*.txt")):
            canary = f"zq{uuid.uuid4().hex[:14]}"
            canaries.append(canary.encode())
            with file.open("a", encoding="utf-8", newline="") as note:
                note.write(f" Seen by {canary}.")
    return Planted(folder, frozenset(canaries))


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
    env = {k: v for k, v in os.environ.items() if k != "CLINIE_FAULT_DRIVER"} | {"RAY_TMPDIR": str(ray_folder)}
    if fault is not None:
        signs = place / "signs"
        signs.mkdir()
        env |= {"CLINIE_FAULT": json.dumps({**fault, "folder": str(signs)}), "PYTHONPATH": str(INJECT)}
    command = [sys.executable, "-m", "search.cli", "search", str(place / "space.yaml"), "--home", str(place / "home")]
    done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=600, check=False)
    return Searched(done.stdout + done.stderr, done.returncode, (place / "home", ray_folder))


def test_a_search_that_succeeds_writes_no_text(planted: Planted, tmp_path: Path, ray_folder: Path) -> None:
    done = search(planted, tmp_path, ray_folder, None)
    assert done.code == 0, done.printed
    assert any("logs" in str(file) for file in ray_folder.rglob("*.log")), "there are no Ray logs to search"
    assert done.leaks(planted) == set()


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
    assert not (tmp_path / "home").exists()
    assert done.leaks(planted) == set()
