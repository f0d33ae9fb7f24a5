"""Real servers on loopback that tests can stop and restart: MLflow's, and PostgreSQL of Debian's package."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.processes import end_with_children


class MlflowServer:
    """An MLflow tracking server on loopback with its own database."""

    def __init__(self, folder: Path, port: int, wait_until: Callable[[Callable[[], bool]], None]) -> None:
        self._folder = folder
        self._wait_until = wait_until
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port
        self.uri = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        self._wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server and its child processes, as a crash does."""
        if self._process is not None:
            end_with_children(self._process, signal.SIGKILL)
        self._process = None


class PostgresServer:
    """A PostgreSQL server of Debian's package on loopback, with its own data folder."""

    def __init__(self, programs: Path, folder: Path, port: int, password: str) -> None:
        self.programs = programs
        self._folder = folder
        self._port = port
        self._password = password

    def url(self, database: str) -> str:
        return f"postgresql://clinie:{self._password}@127.0.0.1:{self._port}/{database}"

    def _run(self, *command: str | Path) -> None:
        words = [str(self.programs / str(command[0])), *map(str, command[1:])]
        # PostgreSQL's programs refuse to run as root.
        words = ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else words
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def initialize(self) -> None:
        (self._folder / "password").write_text(self._password, encoding="ascii")
        if os.getuid() == 0:
            for place in (self._folder, self._folder / "password"):
                shutil.chown(place, "postgres")
        access = ["--auth", "scram-sha-256", "--username", "clinie", "--pwfile", str(self._folder / "password")]
        self._run("initdb", "--pgdata", self._folder / "data", *access)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k '' -c fsync=off"
        log = self._folder / "server.log"
        self._run("pg_ctl", "start", "--wait", "--pgdata", self._folder / "data", "--log", log, "--options", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--pgdata", self._folder / "data", "--mode", "immediate")

    def create(self, database: str) -> None:
        from sqlalchemy import create_engine, text

        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {database}"))
        engine.dispose()
