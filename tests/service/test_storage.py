"""Ledger and MLflow in PostgreSQL, checkpoints and artifacts on S3; secrets are not shown or stored anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pyarrow import fs

from clinie_core.errors import DiskFull, InputError
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import LedgerUnavailable, open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home
from search.storage.trial_store import TrialStore
from search.study.lock import hold_study, is_running

if TYPE_CHECKING:
    from tests.servers import PostgresServer

WriteSpace = Callable[[Mapping[str, Any]], Path]
RunClinie = Callable[..., subprocess.CompletedProcess[str]]


def list_command_lines(marker: str) -> list[str]:
    """Return the command lines of the processes whose variable ``CLINIE_HOME`` contains a marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.environ().get("CLINIE_HOME", ""):
                found.append(" ".join(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def test_a_search_with_postgresql_and_s3_stores_no_secret(
    postgres: PostgresServer,
    s3: dict[str, str],
    tmp_path: Path,
    corpus_folder: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
) -> None:
    for database in ("ledger", "mlflow"):
        postgres.create(database)
    home, ray_folder = tmp_path / "home", Path("/tmp") / f"clinie-ray-{os.getpid()}"
    env = {
        **s3,
        "CLINIE_LEDGER": postgres.url("ledger"),
        "CLINIE_TRACKING_URI": postgres.url("mlflow"),
        "CLINIE_STORAGE": "s3://notes/clinie",
        "CLINIE_HOME": str(home),
        "RAY_TMPDIR": str(ray_folder),
    }
    space = write_space(space_content | {"budget": {"trials": 2, "epochs": 2}})
    program = [str(Path(sys.executable).with_name("clinie")), "search", str(space), "--json"]
    search = subprocess.Popen(
        program, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    shown: set[str] = set()
    while search.poll() is None:
        shown.update(list_command_lines(str(home)))
        try:
            search.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
    output, messages = search.communicate()
    assert search.returncode == 0, messages
    assert any("ray::" in line for line in shown)
    outcome = json.loads(output)
    assert {trial["state"] for trial in outcome["trials"]} == {"complete"}
    assert all(trial["checkpoint"].startswith("s3://notes/clinie/artifacts/") for trial in outcome["trials"])
    assert not (home / "ledger.journal").exists()
    assert not (home / "mlflow.db").exists()
    bucket = fs.S3FileSystem(
        endpoint_override=s3["AWS_ENDPOINT_URL"],
        access_key=s3["AWS_ACCESS_KEY_ID"],
        secret_key=s3["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
    )
    files = [f.path for f in bucket.get_file_info(fs.FileSelector("notes/clinie", recursive=True)) if f.is_file]
    assert any(path.endswith("model.safetensors") for path in files)
    assert not [path for path in files if path.endswith(".tar")], "the state of a trial is removed after its end"

    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nfirst_champion: {strict_f1: 0.0}\n", encoding="utf-8")
    promoted = clinie("promote", "small", "--name", "stored", "--policy", policy, "--home", home, **env)
    assert promoted.returncode == 0, promoted.stderr
    note = next((corpus_folder / "test").glob("*.txt"))
    predicted = clinie("predict", "--model", "stored@champion", note, "--home", home, **env)
    assert predicted.returncode == 0, predicted.stderr

    secrets = [env["AWS_SECRET_ACCESS_KEY"], env["AWS_ACCESS_KEY_ID"], postgres.url("x").split(":")[2].split("@")[0]]
    texts = [output, messages, promoted.stdout, promoted.stderr, predicted.stderr, *shown]
    assert not [secret for secret in secrets if any(secret in text for text in texts)]
    written = [f for folder in (home, ray_folder) for f in folder.rglob("*") if f.is_file()]
    assert any("session" in str(f) for f in written)
    assert not [f for f in written if any(secret.encode() in f.read_bytes() for secret in secrets)]
    for database in ("ledger", "mlflow"):
        dump = subprocess.run(
            [str(postgres.programs / "pg_dump"), postgres.url(database)], capture_output=True, text=True, check=True
        ).stdout
        assert "copy" in dump.lower()
        assert not [secret for secret in secrets if secret in dump]


def test_a_call_waits_for_an_unavailable_database(
    postgres: PostgresServer, tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    postgres.create("waiting")
    home = Home(tmp_path, ledger=postgres.url("waiting"))
    space = build_space(*read_space_file(str(write_space(space_content))))
    ledger = Ledger.create(open_storage(home), "away", space.file.objective, space.file.algorithm, {})
    number, _ = ledger.ask(space)
    ledger.report(number, 1, {"strict_f1": 0.5})
    postgres.stop()
    reported: list[bool] = []
    reporting = threading.Thread(target=lambda: reported.append(ledger.report(number, 2, {"strict_f1": 0.6})))
    reporting.start()
    reporting.join(timeout=2)
    assert reporting.is_alive(), "it waits for the database"
    postgres.start()
    reporting.join(timeout=120)
    assert reported == [True]
    ledger.end(number, "complete")
    again = Ledger.open(open_storage(home), "away")
    assert again.record(number).epochs == {1: {"strict_f1": 0.5}, 2: {"strict_f1": 0.6}}
    assert list_study_names(home) == ["away"]


def test_several_homes_but_not_two_drivers_of_one_home_can_search_a_study(
    postgres: PostgresServer, tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    postgres.create("shared")
    here, there = (Home.open(tmp_path / name, create=True) for name in ("here", "there"))
    here, there = (replace(home, ledger=postgres.url("shared")) for home in (here, there))
    space = build_space(*read_space_file(str(write_space(space_content))))
    storage, other = open_storage(here), open_storage(there)
    ledger = Ledger.create(storage, "one", space.file.objective, space.file.algorithm, {})
    assert not is_running(there, "one", other)
    with hold_study(here, "one", storage) as leases:
        assert leases is not None
        ledger.leases = leases
        assert is_running(there, "one", other)
        assert not is_running(there, "another", other)
        with (
            pytest.raises(InputError, match="is running in this home; join it with another home folder"),
            hold_study(here, "one", storage),
        ):
            pass
        postgres.stop()
        postgres.start()
        number, _ = ledger.ask(space)
        assert leases.claim(number)
        with hold_study(there, "one", other):
            assert ledger.report(number, 1, {"strict_f1": 0.5})
    assert not is_running(there, "one", other)


def test_a_full_disk_is_one_clear_line_and_loses_no_epoch(
    small_disk: Callable[[str], Path], space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    small = small_disk("64k")
    space = build_space(*read_space_file(str(write_space(space_content))))
    home = Home.open(small / "home", create=True)
    ledger = Ledger.create(open_storage(home), "s", space.file.objective, space.file.algorithm, {})
    number, _ = ledger.ask(space)
    epochs = 0

    def fill() -> None:
        nonlocal epochs
        while True:
            ledger.report(number, epochs + 1, {"strict_f1": 0.5, **{f"m{i}": 0.1 for i in range(100)}})
            epochs += 1

    with pytest.raises(LedgerUnavailable, match="No space left on device; free some space and resume the study"):
        fill()
    assert epochs > 3
    subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
    again = Ledger.open(open_storage(home), "s")
    assert set(again.record(number).epochs) == set(range(1, epochs + 1))
    assert again.report(number, epochs + 1, {"strict_f1": 0.7})


def test_a_fetched_folder_equals_the_saved_one(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    store, folder = TrialStore("s3://notes/store"), tmp_path / "00003"
    assert store.list_numbers() == set()
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "model.safetensors").write_bytes(b"weights")
    (folder / "last").mkdir()
    (folder / "last" / "state").write_bytes(b"one")
    store.save(3, folder)
    (folder / "last" / "state").write_bytes(b"two")
    store.save(3, folder)
    store.fetch(3, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "best" / "model.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "elsewhere" / "last" / "state").read_bytes() == b"two"
    assert store.list_numbers() == {3}
    store.remove(3)
    store.remove(3)
    assert store.list_numbers() == set()
    store.fetch(3, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InputError, match="CLINIE_STORAGE: nowhere://x cannot be opened"):
        TrialStore("nowhere://x")


def test_a_full_disk_of_temporary_files_is_one_clear_line(
    small_disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk("64k")))
    (tmp_path / "00003" / "best").mkdir(parents=True)
    (tmp_path / "00003" / "best" / "model.safetensors").write_bytes(b"w" * 100_000)
    store = TrialStore((tmp_path / "store").as_uri())
    with pytest.raises(DiskFull, match="No space left on device; free some space"):
        store.save(3, tmp_path / "00003")
    assert store.list_numbers() == set()
