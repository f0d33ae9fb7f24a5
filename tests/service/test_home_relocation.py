"""Home folders that were moved or copied, and temporary folders of killed processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinie_core.errors import InputError
from search.promotion.copying import open_target
from search.storage.home import Home
from search.storage.relocation import Relocation, record_path
from search.storage.scratch import open_scratch_folder
from search.tracking.connection import connect, get_or_create_experiment


def write_artifact(home: Home) -> tuple[str, str]:
    """Log an artifact; return the id of its run and its address."""
    client = connect(home)
    run = client.create_run(get_or_create_experiment(client, home, "study"))
    client.log_text(run.info.run_id, "content", "file.txt")
    return str(run.info.run_id), f"{run.info.artifact_uri}/file.txt"


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "older-home"])
def test_artifacts_of_a_moved_home_are_found(tmp_path: Path, *, recorded: bool) -> None:
    first, second, third = tmp_path / "a b", tmp_path / "c", tmp_path / "d"
    first.mkdir()
    run, uri = write_artifact(Home(first))
    if not recorded:
        (first / "paths.json").unlink()
    for old, new in ((first, second), (second, third)):
        old.rename(new)
        if recorded:  # the ledger alone, which is opened without MLflow, finds the files too
            assert Relocation.read(new).apply(uri).startswith(f"{new.as_uri()}/artifacts/study/")
        moved = connect(Home(new)).get_run(run).info.artifact_uri
        assert moved.startswith(new.as_uri() + "/artifacts/study/")
        assert Relocation.read(new).apply(uri) == f"{moved}/file.txt"
        assert not old.exists()
    assert Relocation.read(third).apply("file:///elsewhere/file.txt") == "file:///elsewhere/file.txt"
    _, later = write_artifact(Home(third))
    assert later.startswith(third.as_uri())


def test_a_home_that_returns_to_its_first_path(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    run, uri = write_artifact(Home(first))
    first.rename(second)
    record_path(second)
    second.rename(first)
    assert connect(Home(first)).get_run(run).info.artifact_uri + "/file.txt" == uri
    assert json.loads((first / "paths.json").read_text()) == [str(second), str(first)]


def test_the_scratch_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from search.storage.scratch import open_scratch_folder\n"
        "with open_scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'weights').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env={**os.environ})
    assert len(list((tmp_path / "scratch").rglob("weights"))) == 1
    with open_scratch_folder(tmp_path) as own, open_scratch_folder(tmp_path) as other:
        assert {path for path in (tmp_path / "scratch").iterdir() if path.is_dir()} == {own, other}
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["all.lock"]


def test_a_copy_stores_its_files_beside_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINIE_STORAGE", raising=False)
    target = open_target(Home(tmp_path / "source"), f"sqlite:///{tmp_path}/target/registry.db")
    assert target.artifacts == (tmp_path / "target" / "artifacts").as_uri()
    with pytest.raises(InputError, match="a database has no place for the files"):
        open_target(Home(tmp_path), "postgresql://host/database")
