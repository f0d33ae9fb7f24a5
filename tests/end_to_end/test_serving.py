"""HTTP services for a registered model, clinie's and MLflow's, with a real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient

from clinie_core.data.corpora.brat import Brat
from search.storage.home import Home
from tests.processes import end_with_children

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WaitUntil = Callable[[Callable[[], bool]], None]
LIMIT = 2000


def request_json(url: str, body: Any = None, *, kind: str = "application/json") -> tuple[int, Any]:
    """Send a request and return its status and JSON; a body of bytes is sent unchanged."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind} if data is not None else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def run_service(url: str, home: Path, log: Path, wait_until: WaitUntil, *options: str) -> Iterator[None]:
    """Run `clinie serve` on a port while this context is active."""
    program = [str(Path(sys.executable).with_name("clinie")), "serve", "tiny-model@champion", "--home", str(home)]
    with log.open("wb") as out:
        process = subprocess.Popen([*program, "--port", url.rpartition(":")[2], *options], stdout=out, stderr=out)
    try:
        wait_until(lambda: is_ready(f"{url}/healthz", process, log))
        yield
    finally:
        assert end_with_children(process, signal.SIGINT, patience=60) == []
    assert process.returncode == 0
    assert log.read_text().splitlines() == [f"{url}  (Ctrl-C to stop)"]


@pytest.fixture(scope="module")
def service(
    home: Path,
    promoted: dict[str, Any],
    free_port: Callable[[], int],
    wait_until: WaitUntil,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    assert promoted["promoted"]
    url = f"http://127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("service") / "log"
    with run_service(url, home, log, wait_until, "--max-characters", str(LIMIT), "--follow"):
        yield url


def predict_test_split(home: Path, corpus_folder: Path, clinie: RunClinie) -> tuple[list[str], list[Any]]:
    """Return the texts of the test split and the concepts that `clinie predict` finds in them."""
    folder = corpus_folder / "test"
    shown = clinie("predict", folder, "--model", "tiny-model@champion", "--home", home, "--json")
    found = {d["document"]: d["concepts"] for d in json.loads(shown.stdout)["documents"]}
    documents = Brat().read_all(folder)
    return [d.text for d in documents], [found[d.id] for d in documents]


def test_the_service_and_predict_agree(service: str, home: Path, corpus_folder: Path, clinie: RunClinie) -> None:
    texts, concepts = predict_test_split(home, corpus_folder, clinie)
    status, found = request_json(f"{service}/predict", {"texts": texts})
    assert status == 200
    assert [d["concepts"] for d in found["documents"]] == concepts
    assert sum(map(len, concepts)) > 0
    status, health = request_json(f"{service}/healthz")
    assert (status, health["status"], health["model"]) == (200, "ok", "tiny-model@champion")
    assert health["version"] == health["registry_version"] == found["version"]
    assert "/predict" in request_json(f"{service}/openapi.json")[1]["paths"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        ({"text": "Mr Canary Smith"}, "application/json", 422, "Field required"),
        ({"texts": []}, "application/json", 422, "at least 1 item"),
        ({"texts": "Mr Canary Smith"}, "application/json", 422, "valid list"),
        ({"texts": [1]}, "application/json", 422, "valid string"),
        (b'{"texts": ["Mr Canary Smith', "application/json", 422, "JSON decode error"),
        ({"texts": ["Mr Canary Smith " * LIMIT]}, "application/json", 413, f"at most {LIMIT:,}"),
        (b"Mr Canary Smith", "text/plain", 415, "send application/json"),
    ],
)
def test_an_invalid_request_gets_an_error_without_text(
    service: str, body: Any, kind: str, status: int, message: str
) -> None:
    code, found = request_json(f"{service}/predict", body, kind=kind)
    assert code == status
    assert message in json.dumps(found)
    assert "Canary" not in json.dumps(found)


def test_an_occupied_or_invalid_port_is_one_line(service: str, home: Path, clinie: RunClinie) -> None:
    port = service.rpartition(":")[2]
    for wanted, found in ((port, f"port {port} of 127.0.0.1 is in use"), ("99999", "99999 is not a port")):
        done = clinie("serve", "tiny-model@champion", "--home", home, "--port", wanted)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert found in done.stderr


def test_replicas_with_a_token_agree_and_an_alias_that_moves_is_shown(
    home: Path,
    service: str,
    corpus_folder: Path,
    tmp_path: Path,
    clinie: RunClinie,
    free_port: Callable[[], int],
    wait_until: WaitUntil,
) -> None:
    """Two replicas keep their version when the alias moves, and the service with --follow loads the other one."""
    texts, concepts = predict_test_split(home, corpus_folder, clinie)
    client = MlflowClient(uri := Home.open(home).tracking_uri, uri)
    first = client.get_model_version_by_alias("tiny-model", "champion")
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{free_port()}"
    with run_service(url, home, log, wait_until, "--replicas", "2", "--token", "s3cret"):
        assert httpx.post(f"{url}/predict", json={"texts": texts}).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        found = httpx.post(f"{url}/predict", json={"texts": texts}, headers=headers, timeout=60).json()
        assert [d["concepts"] for d in found["documents"]] == concepts
        copy = client.copy_model_version(f"models:/tiny-model/{first.version}", "tiny-model")
        client.set_registered_model_alias("tiny-model", "champion", copy.version)
        try:
            wait_until(lambda: request_json(f"{service}/healthz")[1]["version"] == str(copy.version))
            wait_until(lambda: httpx.get(f"{url}/healthz").json()["registry_version"] == str(copy.version))
            assert httpx.get(f"{url}/healthz").json()["version"] == str(first.version)
        finally:
            client.set_registered_model_alias("tiny-model", "champion", first.version)
            client.delete_model_version("tiny-model", copy.version)


@pytest.mark.usefixtures("promoted")
def test_mlflow_models_serve_agrees_with_predict(
    home: Path,
    corpus_folder: Path,
    tmp_path: Path,
    clinie: RunClinie,
    free_port: Callable[[], int],
    wait_until: WaitUntil,
) -> None:
    texts, concepts = predict_test_split(home, corpus_folder, clinie)
    url = f"http://127.0.0.1:{(port := free_port())}"
    program = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tiny-model@champion"]
    program += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    uri = Home.open(home).tracking_uri  # set both variables: other tests in this process may have set them
    env = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    log = tmp_path / "server.log"
    with log.open("wb") as out, subprocess.Popen(program, stdout=out, stderr=out, env=env, cwd=home) as process:
        wait_until(lambda: is_ready(f"{url}/ping", process, log))
        status, found = request_json(f"{url}/invocations", {"inputs": texts})
        assert status == 200
        assert [json.loads(row)["concepts"] for row in found["predictions"]] == concepts
        assert request_json(f"{url}/invocations", {"inputs": [1]})[0] == 400
        end_with_children(process)


@pytest.mark.usefixtures("promoted")
def test_predict_writes_several_formats(home: Path, corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    texts, concepts = predict_test_split(home, corpus_folder, clinie)
    for to in ("brat", "jsonl", "bioc_xml", "bioc_json"):
        done = clinie(
            *("predict", corpus_folder / "test", "--model", "tiny-model@champion", "--home", home),
            *("--output", tmp_path / to, "--to", to),
        )
        assert done.returncode == 0, done.stderr
        converted = clinie("data", "stats", tmp_path / to, "--format", to, "--json")
        (counts,) = json.loads(converted.stdout).values()
        assert counts["documents"] == len(texts)
        assert sum(counts["concepts"].values()) == sum(map(len, concepts))


@pytest.mark.usefixtures("promoted")
def test_predict_reports_duplicate_names_and_empty_folders(home: Path, tmp_path: Path, clinie: RunClinie) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "note.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    done = clinie(
        *("predict", tmp_path / "a", tmp_path / "b", tmp_path / "empty"),
        *("--model", "tiny-model@champion", "--home", home),
    )
    assert done.returncode == 2
    assert "has the same name as" in done.stderr
    assert "a folder without .txt files" in done.stderr
    assert clinie("predict", tmp_path / "a", "--model", "tiny-model@champion", "--to", "word").returncode == 2
