"""A full disk and a read-only home: every command of a home folder ends with one line, without a traceback."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinie_core.data.document import Corpus
from search.cli.failures import find_storage_fault
from search.cli.main import main
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.ledger.stored_space import store_space
from search.promotion.policy import Policy
from search.promotion.study_promotion import promote_study
from search.storage.home import Home
from search.tracking.connection import connect, get_or_create_experiment

COMMANDS = {
    "status": "status",
    "status of a study": "status small",
    "best": "best small",
    "report": "report small",
    "report in a file": "report small -o HOME/report.html",
    "compare": "compare small small",
    "resume": "resume small",
    "extend": "extend small --trials 1",
    "repeat": "repeat small 0",
    "search": "search SPACE study=other",
    "promote": "promote small --name other",
    "history": "history model",
    "rollback": "rollback model",
    "copy": "copy model@champion --to sqlite:///HOME/copy/registry.db",
    "predict": "predict NOTES -o HOME/predictions --model model@champion",
    "evaluate": "evaluate CORPUS --model model@champion",
    "serve": "serve model@champion --port 0 --replicas 1",
    "stop": "stop small",
    "repair": "repair",
    "doctor": "doctor",
}
READERS = {"status", "status of a study", "best", "doctor"}
"""Commands that need no space and no permission to write."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, corpus_folder: Path, trained: Any) -> Path:
    """A folder with a space file and a home that has a study of one trial and a champion."""
    folder = tmp_path_factory.mktemp("source")
    checkpoint, (config, reports) = trained
    space = {
        "version": 1,
        "study": "small",
        "corpus": {"path": str(corpus_folder), "format": "brat"},
        "budget": {"trials": 2, "epochs": 1},
        "backbones": {"tiny": {"scratch": config.backbone.scratch}},
        "space": {"backbone": "tiny", "formulation": "token_classification", "finetuning": "full"}
        | {"window_tokens": 96, "window_overlap": 16},
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    built = build_space(*read_space_file(str(folder / "space.yaml")))
    home = Home.open(folder / "home", create=True)
    shutil.copytree(checkpoint, home.root / "artifacts" / "best")
    attributes = {"space": store_space(built.file.with_absolute_paths(), home), "where": "space.yaml"}
    train_and_dev = Corpus({split: corpus[split] for split in ("train", "dev")})
    attributes["corpus_digest"] = train_and_dev.digest()
    storage, client = open_storage(home), connect(home)
    ledger = Ledger.create(storage, "small", built.file.objective, built.file.algorithm, attributes)
    run = client.create_run(get_or_create_experiment(client, home, "small"))
    ledger.set_attribute("parent_run", run.info.run_id)
    number, _ = ledger.ask(built)
    ledger.set_locations(number, {"checkpoint": (home.root / "artifacts" / "best").as_uri()})
    ledger.report(number, 1, reports[-1].metrics)
    ledger.end(number, "complete")
    assert promote_study(home, "small", name="model", policy=Policy(version=1)).promoted
    return folder


def run_command(
    name: str, source: Path, home: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> int | str | None:
    arguments = COMMANDS[name].split()
    values = {"HOME": str(home), "SPACE": str(source / "space.yaml"), "CORPUS": str(corpus_folder)}
    values["NOTES"] = str(corpus_folder / "dev")
    for key, value in values.items():
        arguments = [part.replace(key, value) for part in arguments]
    monkeypatch.setattr("sys.argv", ["clinie", *arguments, "--home", str(home)])
    try:
        main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def count_lines(errors: str) -> int:
    """Return the number of lines, without those of a search that has started."""
    return sum(line.startswith(("error", "failed")) for line in errors.splitlines())


@pytest.fixture
def full_home(source: Path, small_disk: Callable[[str], Path]) -> Path:
    """A copy of the home on a disk without free space."""
    disk = small_disk("64m")
    home = disk / "home"
    shutil.copytree(source / "home", home)
    connect(Home(home))  # adapts the paths in the database
    with (disk / "rest").open("wb", buffering=0) as rest:
        block = b"x" * 65536
        while block:
            try:
                rest.write(block)
            except OSError:
                block = block[: len(block) // 2]
    return home


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])  # it writes nothing
def test_a_full_disk_is_one_line(
    name: str,
    full_home: Path,
    source: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (full_home / "ledger.journal").read_bytes()
    code = run_command(name, source, full_home, corpus_folder, monkeypatch)
    errors = capsys.readouterr().err
    assert code in (0, 1, 2)
    assert count_lines(errors) == (1 if code and name != "doctor" else 0), errors
    if name in ("resume", "extend", "repeat", "search", "promote", "copy", "predict", "report in a file"):
        assert code
        assert os.strerror(errno.ENOSPC) in errors or "disk is full" in errors
    assert (full_home / "ledger.journal").read_bytes() == before


@pytest.fixture
def read_only_home(source: Path, tmp_path: Path) -> Iterator[Path]:
    """The home, mounted without permission to write, which also restricts root."""
    place = tmp_path / "read-only"
    place.mkdir()
    for options in (["--bind", str(source / "home")], ["-o", "remount,bind,ro"]):
        mounted = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"a folder cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_home_is_one_line(
    name: str,
    read_only_home: Path,
    source: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_command(name, source, read_only_home, corpus_folder, monkeypatch)
    errors = capsys.readouterr().err
    if name in READERS:
        assert code in (0, 1)
        assert count_lines(errors) == 0
        return
    assert code == 2, errors
    assert count_lines(errors) == 1
    assert "stop" in name or os.strerror(errno.EROFS) in errors, errors


def test_other_errors_keep_their_traceback() -> None:
    assert find_storage_fault(ValueError("database or disk is full")) is None
    assert find_storage_fault(FileNotFoundError(errno.ENOENT, "no such file")) is None
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    fault = find_storage_fault(wrapped)
    assert fault is not None
    assert str(fault[0]).startswith(f"/data/x: cannot be read or written: {os.strerror(errno.ENOSPC)}")
