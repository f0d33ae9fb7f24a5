"""What the service tests share: a real MLflow server that can go away and come back."""

from __future__ import annotations

import os
import subprocess
import sys
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
