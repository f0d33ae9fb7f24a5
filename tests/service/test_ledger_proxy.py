"""Optuna's gRPC proxy between a driver and a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clinie_core.errors import InputError
from search.control.command_log import CommandLog
from search.control.commands import Command
from search.ledger.database import open_database
from search.ledger.driver import Driver
from search.ledger.leases import StudyLeases, find_live_drivers
from search.ledger.ledger import Ledger
from search.ledger.proxy import open_proxy
from search.ledger.storage import get_lease_storage, open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home
from search.study.lock import find_drivers, hold_study
from tests.conftest import RunClinie
from tests.processes import end_with_children
from tests.small_space import build_small_space

if TYPE_CHECKING:
    from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def proxy(
    postgres: PostgresServer, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a proxy, started by the command line."""
    log_file = tmp_path_factory.mktemp("proxy") / "proxy.log"
    postgres.create("proxied")
    port = free_port()
    command = [str(Path(sys.executable).with_name("clinie")), "ledger", "serve", "--port", str(port)]
    env = {**os.environ, "CLINIE_LEDGER": postgres.url("proxied")}
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    yield f"grpc://127.0.0.1:{port}"
    end_with_children(process)
    assert "pg-Secret-4711" not in log_file.read_text(encoding="utf-8")


def test_a_study_is_read_and_written_through_a_proxy(
    proxy: str, postgres: PostgresServer, tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    home = Home(tmp_path, ledger=proxy)

    def is_ready() -> bool:
        try:
            return list_study_names(home) == []
        except InputError:
            return False

    wait_until(is_ready)
    assert find_drivers("proxied", open_storage(home)) == []
    space = build_small_space("proxied", budget={"trials": 2, "epochs": 2})
    storage = open_storage(home)
    assert get_lease_storage(storage) is not None
    ledger = Ledger.create(storage, "proxied", space.file.objective, space.file.algorithm, {"where": "space.yaml"})
    with hold_study(home, "proxied", storage) as leases:
        assert leases is not None
        ledger.leases = leases
        number, config = ledger.ask(space)
        assert leases.claim(number)
        for epoch in (1, 2):
            assert ledger.report(number, epoch, {"strict_f1": 0.1 * epoch})
        CommandLog(ledger).send(Command("more", "add-budget", 1, trials=1))
        ledger.end(number, "complete")
    direct = Ledger.open(open_storage(Home(tmp_path, ledger=postgres.url("proxied"))), "proxied")
    record = direct.record(number)
    assert (record.state, record.config, sorted(record.epochs)) == ("complete", config, [1, 2])
    assert CommandLog(direct).find("more") is not None
    assert ledger.records() == direct.records()


HOLD_SECTION = """
import sys, time
from search.ledger.leases import StudyLeases
from search.ledger.proxy import open_proxy
leases = StudyLeases(open_proxy(sys.argv[1]), "shared", seconds=3600.0)

def claim_and_wait():
    assert leases.claim(5)
    print(leases.name, flush=True)
    time.sleep(600)

leases.join()
assert leases.claim(4)
leases.run_exclusively(claim_and_wait)
"""


def test_drivers_with_and_without_a_proxy_share_a_study(
    proxy: str, postgres: PostgresServer, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    def is_ready() -> bool:
        try:
            return open_proxy(proxy).has_leases
        except InputError:
            return False

    wait_until(is_ready)
    away = Driver.of_this_process()
    direct = StudyLeases(open_database(postgres.url("proxied")), "shared", seconds=3600.0)
    proxied = StudyLeases(open_proxy(proxy), "shared", away, seconds=3600.0)
    with direct.hold(), proxied.hold():
        assert find_live_drivers(open_proxy(proxy), "shared") == sorted([direct.name, proxied.name])
        assert direct.claim(0)
        assert not proxied.claim(0)
        assert proxied.claim(1)
        assert proxied.read() == direct.read() == {0: direct.name, 1: proxied.name}
        assert proxied.find_own() == [1]

        def claim_and_fail() -> None:
            assert proxied.claim(2)
            raise KeyError

        with pytest.raises(KeyError):
            proxied.run_exclusively(claim_and_fail)
        assert direct.claim(2), "the section was rolled back"
        proxied.release(1)
        assert proxied.has_others()
        assert not proxied.begin_closing()
        program = [sys.executable, "-c", HOLD_SECTION, proxy]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            process.send_signal(signal.SIGKILL)
        assert name
        # The server releases the lock of the section, and the end of the process is noticed at once.
        assert direct.claim(5)
        assert proxied.claim(4)
    assert find_live_drivers(open_proxy(proxy), "shared") == []


def test_a_wrong_proxy_is_one_clear_line(tmp_path: Path, clinie: RunClinie) -> None:
    for url in ("grpc://", "grpc://host", "grpc://host:port", "grpc://host:1/database"):
        with pytest.raises(InputError, match=r"CLINIE_LEDGER: not the URL of a proxy; .*grpc://HOST:PORT"):
            open_storage(Home(tmp_path, ledger=url))
    for ledger in ({"CLINIE_LEDGER": ""}, {"CLINIE_LEDGER": "grpc://127.0.0.1:1"}):
        done = clinie("ledger", "serve", **ledger)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "CLINIE_LEDGER: no database to serve" in done.stderr
