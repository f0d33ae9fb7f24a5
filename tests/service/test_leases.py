"""Leases of several drivers on the trials of one study, in a real PostgreSQL, without Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from search.ledger.database import DatabaseStorage, open_database
from search.ledger.driver import Driver, LeaseLost
from search.ledger.leases import StudyLeases, find_live_drivers

if TYPE_CHECKING:
    from tests.servers import PostgresServer

HERE = Driver.of_this_process()


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    postgres.create("leases")
    return postgres.url("leases")


@pytest.fixture
def storage(url: str) -> Iterator[DatabaseStorage]:
    opened = open_database(url)
    yield opened
    opened.engine.dispose()


def make_leases(storage: DatabaseStorage, study: str, name: str, *, seconds: float = 60.0) -> StudyLeases:
    """Return the leases of a driver on another machine, which is only known by its renewals."""
    return StudyLeases(storage, study, Driver(name, f"machine of {name}", HERE.pid, HERE.started), seconds)


def wait_for_time(leases: StudyLeases, wait_until: Callable[[Callable[[], bool]], None], count: int) -> None:
    """Renew leases until the study has a number of drivers."""

    def is_reached() -> bool:
        leases.renew()
        leases.read()
        return len(find_live_drivers(leases._storage, leases._study)) == count and len(set(leases.read().values())) <= 1

    wait_until(is_reached)


def test_a_trial_has_one_driver(storage: DatabaseStorage) -> None:
    here, there = (make_leases(storage, "one", name) for name in ("here", "there"))
    with here.hold(), there.hold():
        assert find_live_drivers(storage, "one") == ["here", "there"]
        assert find_live_drivers(storage, "another") == []
        assert here.claim(0)
        assert here.claim(0), "a repeated claim has no effect"
        assert not there.claim(0)
        there.release(0)
        assert here.read() == {0: "here"}, "a driver releases only its own leases"
        here.release(0)
        assert there.claim(0)
        assert there.find_own() == [0]
    assert find_live_drivers(storage, "one") == []


def test_the_leases_of_a_driver_that_does_not_renew_them_are_taken(
    storage: DatabaseStorage, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    here, there = (make_leases(storage, "late", name, seconds=1.0) for name in ("here", "there"))
    here.join()
    there.join()
    assert there.claim(3)
    assert not here.claim(3)
    wait_for_time(here, wait_until, 1)
    assert here.claim(3)
    with pytest.raises(LeaseLost, match="other drivers of 'late' have taken up its trials; join them with"):
        there.claim(4)
    there.renew()
    with pytest.raises(LeaseLost):
        there.check()
    there.leave()
    assert here.read() == {3: "here"}
    here.check()
    here.leave()


def test_an_outage_of_the_database_ends_no_lease(
    postgres: PostgresServer, url: str, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    here, there = (make_leases(open_database(url), "outage", name, seconds=2.0) for name in ("here", "there"))
    with here.hold():
        there.join()
        assert there.claim(1)
        postgres.stop()
        wait_until(lambda: here._renewed + 2.0 < time.clock_gettime(time.CLOCK_BOOTTIME))
        postgres.start()
        assert not here.claim(1), "the other driver could not renew its lease"
        there.renew()
        there.check()
        assert there.find_own() == [1]
        there.leave()


def test_the_end_of_a_process_on_this_machine_is_noticed_at_once(storage: DatabaseStorage) -> None:
    program = """
import sys, time
from search.ledger.database import open_database
from search.ledger.leases import StudyLeases
leases = StudyLeases(open_database(sys.argv[1]), "killed", seconds=3600.0)
with leases.hold():
    assert leases.claim(5)
    print(leases.name, flush=True)
    time.sleep(600)
"""
    here = make_leases(storage, "killed", "here", seconds=3600.0)
    with here.hold():
        command = [sys.executable, "-c", program, storage.engine.url.render_as_string(hide_password=False)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            assert find_live_drivers(storage, "killed") == sorted([name, "here"])
            assert not here.claim(5)
            process.send_signal(signal.SIGKILL)
        assert here.claim(5)
        assert find_live_drivers(storage, "killed") == ["here"]


def test_sections_of_drivers_do_not_overlap(url: str) -> None:
    storages = [open_database(url) for _ in range(4)]
    drivers = [make_leases(storage, "sections", f"driver {i}") for i, storage in enumerate(storages)]
    drivers[0].join()
    counts = {"inside": 0, "most": 0}
    taken: list[int] = []

    def take_next(leases: StudyLeases) -> None:
        counts["inside"] += 1
        counts["most"] = max(counts["most"], counts["inside"])
        number = len(taken)
        assert leases.claim(number)
        taken.append(number)
        counts["inside"] -= 1

    def work(leases: StudyLeases) -> None:
        leases.join()
        for _ in range(10):
            leases.run_exclusively(lambda: take_next(leases))

    threads = [threading.Thread(target=work, args=(leases,)) for leases in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"inside": 0, "most": 1}
    assert taken == list(range(40))
    assert len(drivers[0].read()) == 40
    for leases in drivers:
        leases.leave()


def test_the_last_driver_closes_the_study_before_another_one_joins(storage: DatabaseStorage) -> None:
    first, second, third = (make_leases(storage, "end", name) for name in ("first", "second", "third"))
    first.join()
    second.join()
    assert not first.begin_closing(), "the second one is still searching"
    first.leave()
    assert second.begin_closing()
    joining = threading.Thread(target=third.join)
    joining.start()
    joining.join(timeout=1)
    assert joining.is_alive()
    second.leave()
    joining.join(timeout=60)
    assert find_live_drivers(storage, "end") == ["third"]
    third.leave()
