"""Fixtures of all tests: a tiny backbone, a small synthetic corpus on disk, servers, a local Ray."""

from __future__ import annotations

import os

# The models are tiny, so several threads are slower than one. Torch reads the variable when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import search.cluster.environment  # noqa: F401  # before Ray, which reads the environment on import

# isort: split
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from tests.servers import MlflowServer, PostgresServer

TINY: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
}
hypothesis.settings.register_profile("clinie", deadline=None)  # a slow machine is not a failure
hypothesis.settings.load_profile("clinie")
RunClinie = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_backbone() -> BackboneSource:
    return BackboneSource(name="tiny", scratch=TINY)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return Corpus({split: tuple(notes) for split, notes in generate_splits(20, seed=3).items()})


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split, notes in generate_splits(20, seed=3).items():
        Brat().write(notes, folder / split)
    return folder


@pytest.fixture
def make_config(tiny_backbone: BackboneSource) -> Callable[..., TrialConfig]:
    def make(**changes: Any) -> TrialConfig:
        values: dict[str, Any] = {
            "backbone": tiny_backbone,
            "formulation": ComponentChoice(name="token_classification"),
            "finetuning": ComponentChoice(name="full", parameters={"learning_rate": 3e-3}),
            "epochs": 2,
            "batch_size": 8,
            "window_tokens": 96,
            "window_overlap": 16,
            "precision": "float32",
            "dropout": 0.0,
        }
        return TrialConfig(**(values | changes))

    return make


@pytest.fixture
def space_content(corpus_folder: Path) -> dict[str, Any]:
    """A small valid space, which tests modify."""
    return {
        "version": 1,
        "study": "small",
        "corpus": {"path": str(corpus_folder)},
        "budget": {"trials": 3, "epochs": 2},
        "algorithm": {"startup_trials": 2},
        "resources": {"cpus_per_worker": 1, "concurrent_trials": 1},
        "backbones": {"tiny": {"scratch": dict(TINY), "allow_frozen": True}},
        "space": {
            "backbone": "tiny",
            "formulation": {"choose": {"token_classification": {"head": {"choose": ["linear", "crf"]}}}},
            "finetuning": {
                "choose": {
                    "full": {"learning_rate": {"log": [1.0e-3, 1.0e-2]}},
                    "lora": {"rank": {"log_int": [2, 8]}, "learning_rate": {"log": [1.0e-3, 1.0e-2]}},
                    "ia3": {},
                }
            },
            "batch_size": {"choose": [8, 16]},
            "window_tokens": 96,
            "window_overlap": 16,
        },
    }


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    def write(content: Mapping[str, Any]) -> Path:
        file = tmp_path / "space.yaml"
        file.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def clinie() -> RunClinie:
    """Function that runs the command line in a separate process."""

    def run(*arguments: str | Path, input_text: str = "", timeout: float = 900, **env: str) -> Any:
        return subprocess.run(
            [str(Path(sys.executable).with_name("clinie")), *map(str, arguments)],
            capture_output=True,
            text=True,
            input=input_text,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "140", **env},
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from search.cluster.session import ray_session

    with ray_session(tmp_path_factory.mktemp("ray"), cpus=2):
        yield


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Function that finds an unused port for a server.

    The port is below the range of ephemeral ports, because Ray's processes use many of these. It does not depend on
    the seed of Python's generator, so that tests in other processes do not find the same one.
    """
    draws = random.SystemRandom()

    def find() -> int:
        while True:
            port = draws.randrange(20_000, 30_000)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return port

    return find


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Function that waits for a condition, at most ten minutes, which only a test that hangs exceeds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 600
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true within ten minutes"
            time.sleep(0.2)

    return wait


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
def postgres(free_port: Callable[[], int]) -> Iterator[PostgresServer]:
    """A PostgreSQL server, started with initdb and pg_ctl from /usr/lib/postgresql; as user postgres if run by root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="clinie-postgres-"))  # other users have no access to pytest's folders
    server = PostgresServer(programs[-1].parent, folder, free_port(), "pg-Secret-4711")
    server.initialize()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Function that mounts a disk of a size such as ``64k``; skips the test without the permission to mount."""
    folder = tmp_path / "small"

    def mount(size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # this process may have open files there
