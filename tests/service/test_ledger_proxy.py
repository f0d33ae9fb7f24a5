"""Optuna's gRPC proxy between a driver and a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clinie_core.errors import InputError
from search.control.command_log import CommandLog
from search.control.commands import Command
from search.ledger.ledger import Ledger
from search.ledger.storage import get_shared_database, open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home
from search.study.lock import hold_study
from tests.conftest import RunClinie
from tests.processes import end_with_children
from tests.small_space import build_small_space

if TYPE_CHECKING:
    from tests.servers import PostgresServer


@pytest.fixture
def proxy(postgres: PostgresServer, free_port: Callable[[], int], tmp_path: Path) -> Iterator[str]:
    """URL of a proxy, started by the command line."""
    postgres.create("proxied")
    port = free_port()
    command = [str(Path(sys.executable).with_name("clinie")), "ledger", "serve", "--port", str(port)]
    env = {**os.environ, "CLINIE_LEDGER": postgres.url("proxied")}
    with (tmp_path / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    yield f"grpc://127.0.0.1:{port}"
    end_with_children(process)
    assert "pg-Secret-4711" not in (tmp_path / "proxy.log").read_text(encoding="utf-8")


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
    space = build_small_space("proxied", budget={"trials": 2, "epochs": 2})
    storage = open_storage(home)
    assert get_shared_database(storage) is None, "several drivers need direct access to the database"
    ledger = Ledger.create(storage, "proxied", space.file.objective, space.file.algorithm, {"where": "space.yaml"})
    with hold_study(home, "proxied", storage) as leases:
        assert leases is None
        number, config = ledger.ask(space)
        for epoch in (1, 2):
            assert ledger.report(number, epoch, {"strict_f1": 0.1 * epoch})
        CommandLog(ledger).send(Command("more", "add-budget", 1, trials=1))
        ledger.end(number, "complete")
    direct = Ledger.open(open_storage(Home(tmp_path, ledger=postgres.url("proxied"))), "proxied")
    record = direct.record(number)
    assert (record.state, record.config, sorted(record.epochs)) == ("complete", config, [1, 2])
    assert CommandLog(direct).find("more") is not None
    assert ledger.records() == direct.records()


def test_a_wrong_proxy_is_one_clear_line(tmp_path: Path, clinie: RunClinie) -> None:
    for url in ("grpc://", "grpc://host", "grpc://host:port", "grpc://host:1/database"):
        with pytest.raises(InputError, match=r"CLINIE_LEDGER: not the URL of a proxy; .*grpc://HOST:PORT"):
            open_storage(Home(tmp_path, ledger=url))
    for ledger in ({"CLINIE_LEDGER": ""}, {"CLINIE_LEDGER": "grpc://127.0.0.1:1"}):
        done = clinie("ledger", "serve", **ledger)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "CLINIE_LEDGER: no database to serve" in done.stderr
