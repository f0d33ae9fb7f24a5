"""Processes that use an empty PostgreSQL database at once create its tables once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers import PostgresServer

PROCESSES = 3
LEDGER = "from search.ledger.database import open_database as call"
MLFLOW = """
from pathlib import Path
from search.storage.home import Home
from search.tracking.connection import connect, require_reachable
call = lambda url: require_reachable(connect(Home(Path(FOLDER), server=url)))
"""


@pytest.mark.parametrize("program", [LEDGER, MLFLOW], ids=["ledger", "mlflow"])
def test_an_empty_database_is_opened_by_several_processes_at_once(
    program: str, postgres: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database = f"empty_{request.node.callspec.id}"
    postgres.create(database)
    # The imports take most of the time, so that the processes wait for each other after them.
    code = (
        f"FOLDER = {str(tmp_path)!r}\n{program}\nprint('ready', flush=True)\ninput()\ncall({postgres.url(database)!r})"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    messages = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, "\n".join(messages)
