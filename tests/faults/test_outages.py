"""A search whose servers go away for a while, or whose disk fills up, ends as one that nothing happened to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.searches import POINTS, TRIALS, Ending, ending_of, expect, processes_of, run, write_search
from tests.servers import MlflowServer, PostgresServer

pytestmark = pytest.mark.slow
LAST_END = {"at": "search.ledger.ledger:Ledger.end", "after": True, "count": TRIALS}
THIRD_PAUSE = {"at": "search.ledger.storage:_pause", "after": True, "count": 3}


@contextmanager
def answering(signs: Path, actions: Mapping[str, Callable[[], None]]) -> Iterator[None]:
    """Does what the processes of a search ask for, each sign once."""
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


def fault_of(signs: Path, **asks: dict[str, Any]) -> dict[str, Any]:
    """A fault of which the processes tell the test: at which place each sign is given."""
    return {"folder": str(signs), "asks": [{**place, "sign": sign} for sign, place in asks.items()]}


@pytest.mark.parametrize("point", POINTS)
def test_mlflow_goes_away_and_comes_back(
    point: str, mlflow_server: MlflowServer, tmp_path: Path, signs: Path, corpus_folder: Path, undisturbed: Ending
) -> None:
    """It goes at the point and is back when the last trial has ended."""
    where, home = {"CLINIE_TRACKING_URI": mlflow_server.uri}, tmp_path / "home"
    fault = fault_of(signs, gone=POINTS[point], back=LAST_END)
    with answering(signs, {"gone": mlflow_server.kill, "back": mlflow_server.start}):
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "gone.done").exists()
    expect(ending_of(home, **where), undisturbed)


def test_mlflow_comes_back_after_the_search(
    mlflow_server: MlflowServer, tmp_path: Path, signs: Path, corpus_folder: Path, undisturbed: Ending
) -> None:
    """Then a resume of the finished study sends what is waiting."""
    where, home = {"CLINIE_TRACKING_URI": mlflow_server.uri}, tmp_path / "home"
    with answering(signs, {"gone": mlflow_server.kill}):
        fault = fault_of(signs, gone=POINTS["after the ledger has a trial's end"])
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "gone.done").exists()
    mlflow_server.start()
    done = run(["resume", "faults"], home, None, **where)
    assert done.returncode == 0, done.stderr
    expect(ending_of(home, **where), undisturbed)


@pytest.mark.parametrize("point", POINTS)
def test_postgresql_goes_away_and_comes_back(
    point: str, postgres: PostgresServer, tmp_path: Path, signs: Path, corpus_folder: Path, undisturbed: Ending
) -> None:
    """With it goes all that is in it: the ledger and MLflow's record."""
    names = [f"{part}_outage_{list(POINTS).index(point)}" for part in ("ledger", "mlflow")]
    for name in names:
        postgres.create(name)
    where = {"CLINIE_LEDGER": postgres.url(names[0]), "CLINIE_TRACKING_URI": postgres.url(names[1])}
    fault = fault_of(signs, gone=POINTS[point], back=THIRD_PAUSE)
    with answering(signs, {"gone": postgres.stop, "back": postgres.start}):
        done = run(["search", str(write_search(tmp_path, corpus_folder))], tmp_path / "home", fault, **where)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (signs / "back.done").exists(), "the search waited for it"
    expect(ending_of(tmp_path / "home", **where), undisturbed)


@pytest.mark.parametrize("point", POINTS)
def test_the_disk_fills_up(
    point: str,
    small_disk: Callable[[str], Path],
    tmp_path: Path,
    signs: Path,
    corpus_folder: Path,
    undisturbed: Ending,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """The search says so in one line, and goes on when there is room again."""
    disk = small_disk("64m")
    home, filler = disk / "home", disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    with answering(signs, {"full": fill}):
        fault = fault_of(signs, full=POINTS[point])
        done = run(["search", str(write_search(tmp_path, corpus_folder))], home, fault)
    assert filler.exists()
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    wait_until(lambda: not processes_of(home))
    filler.unlink()
    done = run(["resume", "faults"], home, None)
    assert done.returncode == 0, done.stderr
    expect(ending_of(home), undisturbed)
    wait_until(lambda: not processes_of(home))
