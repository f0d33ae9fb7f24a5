"""A search has the same outcome as without faults after a server outage or, when resumed, a full disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.searches import (
    POINTS,
    TRIALS,
    SearchOutcome,
    assert_same,
    find_processes,
    read_outcome,
    run,
    write_search,
)
from tests.servers import MlflowServer, PostgresServer

pytestmark = pytest.mark.slow
LAST_END = {"at": "search.ledger.ledger:Ledger.end", "after": True, "count": TRIALS}
THIRD_PAUSE = {"at": "search.ledger.database:_pause", "after": True, "count": 3}


@contextmanager
def answer_signs(signs: Path, actions: Mapping[str, Callable[[], None]]) -> Iterator[None]:
    """Run the action for each sign that the processes of a search write, once per sign."""
    over = threading.Event()

    def answer() -> None:
        left = dict(actions)
        while left and not over.wait(0.05):
            for sign in [s for s in left if (signs / s).exists()]:
                left.pop(sign)()
                (signs / f"{sign}.done").touch()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs"


def make_fault(signs: Path, **asks: dict[str, Any]) -> dict[str, Any]:
    """Return a fault that makes the processes write a sign at each place and wait for the test's action."""
    return {"folder": str(signs), "asks": [{**place, "sign": sign} for sign, place in asks.items()]}


@pytest.mark.parametrize("point", POINTS)
def test_mlflow_is_unavailable_during_the_search(
    point: str,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    signs: Path,
    corpus_folder: Path,
    undisturbed: SearchOutcome,
) -> None:
    """The server stops at the point and restarts when the last trial has ended."""
    where, home = {"CLINIE_TRACKING_URI": mlflow_server.uri}, tmp_path / "home"
    fault = make_fault(signs, gone=POINTS[point], back=LAST_END)
    with answer_signs(signs, {"gone": mlflow_server.kill, "back": mlflow_server.start}):
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "gone.done").exists()
    assert_same(read_outcome(home, **where), undisturbed)


def test_mlflow_is_available_again_after_the_search(
    mlflow_server: MlflowServer, tmp_path: Path, signs: Path, corpus_folder: Path, undisturbed: SearchOutcome
) -> None:
    """Resuming the finished study sends the queued events."""
    where, home = {"CLINIE_TRACKING_URI": mlflow_server.uri}, tmp_path / "home"
    with answer_signs(signs, {"gone": mlflow_server.kill}):
        fault = make_fault(signs, gone=POINTS["after the ledger has recorded a trial's end"])
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "gone.done").exists()
    mlflow_server.start()
    done = run(["resume", "faults"], home, None, **where)
    assert done.returncode == 0, done.stderr
    assert_same(read_outcome(home, **where), undisturbed)


@pytest.mark.parametrize("point", POINTS)
def test_postgresql_is_unavailable_during_the_search(
    point: str, postgres: PostgresServer, tmp_path: Path, signs: Path, corpus_folder: Path, undisturbed: SearchOutcome
) -> None:
    """The database holds both the ledger and MLflow's data."""
    names = [f"{part}_outage_{list(POINTS).index(point)}" for part in ("ledger", "mlflow")]
    for name in names:
        postgres.create(name)
    where = {"CLINIE_LEDGER": postgres.url(names[0]), "CLINIE_TRACKING_URI": postgres.url(names[1])}
    fault = make_fault(signs, gone=POINTS[point], back=THIRD_PAUSE)
    with answer_signs(signs, {"gone": postgres.stop, "back": postgres.start}):
        done = run(["search", str(write_search(tmp_path, corpus_folder))], tmp_path / "home", fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "back.done").exists(), "the search did not wait for the database"
    assert_same(read_outcome(tmp_path / "home", **where), undisturbed)


@pytest.mark.parametrize("point", POINTS)
def test_the_disk_is_full(
    point: str,
    small_disk: Callable[[str], Path],
    tmp_path: Path,
    signs: Path,
    corpus_folder: Path,
    undisturbed: SearchOutcome,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """The search ends with one line, and can be resumed when there is space again."""
    disk = small_disk("64m")
    home, filler = disk / "home", disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    with answer_signs(signs, {"full": fill}):
        fault = make_fault(signs, full=POINTS[point])
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault)
    assert filler.exists()
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    wait_until(lambda: not find_processes(home))
    filler.unlink()
    done = run(["resume", "faults"], home, None)
    assert done.returncode == 0, done.stderr
    assert_same(read_outcome(home), undisturbed)
    wait_until(lambda: not find_processes(home))
