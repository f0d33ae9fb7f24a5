"""What the service tests share: a real MLflow server that can go away and come back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clinie_core.config import Part, TrialConfig
from clinie_core.document import Corpus
from clinie_core.training import EpochReport, train


class MlflowServer:
    """A tracking server on loopback over a database of its own."""

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
        """End it at once, as a crash does: the server and the processes that it started."""
        import psutil

        if self._process is None:
            return
        family = psutil.Process(self._process.pid).children(recursive=True)
        for process in family:
            process.kill()
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(family)
        self._process = None


@pytest.fixture
def mlflow_server(
    tmp_path: Path, free_port: Callable[[], int], wait_until: Callable[[Callable[[], bool]], None]
) -> Iterator[MlflowServer]:
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server", free_port(), wait_until)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tiny_backbone: Any) -> tuple[Path, list[Any]]:
    """A checkpoint, and the configuration and reports that led to it."""
    folder = tmp_path_factory.mktemp("trained")
    config = TrialConfig(
        backbone=tiny_backbone,
        formulation=Part(name="token_classification"),
        finetuning=Part(name="lora", parameters={"learning_rate": 3e-3, "rank": 4}),
        epochs=3,
        window_tokens=96,
        window_overlap=16,
        precision="float32",
    )
    reports: list[EpochReport] = []
    train(config, corpus, folder=folder, on_epoch=lambda report: reports.append(report) or True)  # type: ignore[func-returns-value]
    return folder / "best", [config, reports]


class PostgresServer:
    """A PostgreSQL of Debian's package on loopback, with a database of its own; it can go away and come back."""

    def __init__(self, programs: Path, folder: Path, port: int, password: str) -> None:
        self.programs = programs
        self._folder = folder
        self._port = port
        self._password = password

    def url(self, database: str) -> str:
        return f"postgresql://clinie:{self._password}@127.0.0.1:{self._port}/{database}"

    def _run(self, *command: str | Path) -> None:
        words = [str(self.programs / str(command[0])), *map(str, command[1:])]
        # Its programs refuse to run as root.
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


PASSWORD = "pg-Secret-4711"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED4711", "AWS_SECRET_ACCESS_KEY": "s3-Secret-4712"}


@pytest.fixture(scope="session")
def postgres(free_port: Callable[[], int]) -> Iterator[PostgresServer]:
    """Starts by initdb and pg_ctl from /usr/lib/postgresql, as the user postgres where the tests run as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="clinie-postgres-"))  # pytest's own folders are closed to other users
    server = PostgresServer(programs[-1].parent, folder, free_port(), PASSWORD)
    server.initialize()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def s3(
    free_port: Callable[[], int],
    wait_until: Callable[[Callable[[], bool]], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, str]]:
    """The environment that leads to a server of S3, moto's, with a bucket ``notes``."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path_factory.mktemp("s3") / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers)
    import boto3

    keys = {
        "aws_access_key_id": S3_KEYS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys).create_bucket(Bucket="notes")
    yield {**S3_KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address, "MLFLOW_S3_ENDPOINT_URL": address}
    server.terminate()
    server.wait()
