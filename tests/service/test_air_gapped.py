"""A site without internet: jobs with fetched backbones, and MLflow behind a proxy with TLS and a token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clinie_core.backbones.fetching import fetch_backbones
from clinie_core.config import BackboneSource
from tests.clusters import Cluster
from tests.conftest import RunClinie
from tests.core.test_hub import hub as hub  # noqa: PLC0414  # fixtures
from tests.core.test_hub import tiny_files as tiny_files  # noqa: PLC0414
from tests.hub_server import HubServer, Repository
from tests.servers import MlflowServer, PostgresServer
from tests.tls_proxy import TlsProxy

WriteSpace = Callable[[Mapping[str, Any]], Path]
WaitUntil = Callable[[Callable[[], bool]], None]
TOKEN = "bearer-Secret-4713"


@dataclass(frozen=True)
class Site:
    """A cluster, and an MLflow server behind a proxy.

    Args:
        cluster: The cluster; the environment of its nodes contains the secrets.
        proxy: The proxy.
        secrets: Environment of a client of MLflow and the ledger.
        folder: Folder of the servers' files and of Ray's sessions.
    """

    cluster: Cluster
    proxy: TlsProxy
    secrets: dict[str, str]
    folder: Path


@pytest.fixture
def proxy(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[TlsProxy]:
    """A proxy whose requests go nowhere."""
    made = TlsProxy(tmp_path, free_port(), "http://127.0.0.1:9", TOKEN)
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    wait_until: WaitUntil,
    postgres: PostgresServer,
    s3: dict[str, str],
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    mlflow = MlflowServer(folder, free_port(), wait_until)
    mlflow.start()
    proxy = TlsProxy(folder, free_port(), mlflow.uri, TOKEN)
    postgres.create("site")
    secrets = {
        **s3,
        "CLINIE_TRACKING_URI": proxy.url,
        "CLINIE_CACHE": str(folder / "cache"),
        "CLINIE_LEDGER": postgres.url("site"),
        "CLINIE_STORAGE": "s3://notes/site",
        "MLFLOW_TRACKING_TOKEN": TOKEN,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(proxy.authority),
    }
    cluster = Cluster(folder, free_port, wait_until, variables={"RAY_TMPDIR": str(folder / "r"), **secrets})
    yield Site(cluster, proxy, secrets, folder)
    cluster.stop()
    proxy.close()
    mlflow.kill()


@pytest.mark.slow
def test_submitted_jobs_reach_mlflow_through_a_proxy(
    site: Site,
    postgres: PostgresServer,
    tmp_path: Path,
    corpus_folder: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    wait_until: WaitUntil,
) -> None:
    ray_token = Path(site.cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray_token}
    home, there = tmp_path / "home", ["--address", site.cluster.dashboard]
    content = space_content | {"budget": {"trials": 2, "epochs": 30}, "algorithm": {"scheduler": "none"}}
    texts = []

    def run(*arguments: str | Path, **environment: str) -> str:
        done = clinie(*arguments, **{**client, **environment})
        assert done.returncode == 0, done.stderr
        texts.extend([done.stdout, done.stderr])
        return done.stdout

    job = json.loads(run("submit", write_space(content), *there, "--home", home, "--json"))["job"]

    def has_epochs() -> bool:
        shown = clinie("status", "small", "--home", home, "--json", **site.secrets)
        assert json.loads(run("status", job, *there, "--json"))["jobs"][0]["status"] in ("pending", "running")
        return shown.returncode == 0 and any(t["epochs"] for t in json.loads(shown.stdout)["trials"])

    wait_until(has_epochs)
    run("stop", "small", *there)
    wait_until(lambda: json.loads(run("status", job, *there, "--json"))["jobs"][0]["status"] != "running")
    resumed = json.loads(run("submit", "small", "--resume", *there, "--home", home, "--json"))["job"]
    run("logs", resumed, "--follow", *there)
    trials = json.loads(run("status", "small", "--home", home, "--json", **site.secrets))["trials"]
    assert [(trial["state"], trial["epochs"]) for trial in trials] == [("complete", 30)] * 2
    assert all(trial["run_id"] for trial in trials)
    assert site.proxy.rejected == 0

    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nfirst_champion: {strict_f1: 0.0}\n", encoding="utf-8")
    run("promote", "small", "--name", "proxied", "--policy", policy, "--home", home, **site.secrets)
    note = next((corpus_folder / "test").glob("*.txt"))
    run("predict", "--model", "proxied@champion", note, "--home", home, **site.secrets)

    written = [file for folder in (home, site.folder) for file in folder.rglob("*") if file.is_file()]
    assert any("session" in str(file) for file in written)
    assert not [file for file in written if TOKEN.encode() in file.read_bytes()]
    assert not [text for text in texts if TOKEN in text]
    dump = subprocess.run(
        [str(postgres.programs / "pg_dump"), postgres.url("site")], capture_output=True, text=True, check=True
    ).stdout
    assert "small" in dump
    assert TOKEN not in dump


@pytest.mark.parametrize(
    ("has_certificate", "message"),
    [
        (True, "MLflow at {url} rejects the request; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME"),
        (False, "the certificate of MLflow at {url} is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH"),
    ],
    ids=["token", "certificate"],
)
def test_a_refused_connection_is_one_line(
    proxy: TlsProxy,
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
    has_certificate: bool,
    message: str,
) -> None:
    environment = {"CLINIE_TRACKING_URI": proxy.url, "MLFLOW_TRACKING_TOKEN": "wrong-Secret-4714"}
    if has_certificate:
        environment["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(proxy.authority)
    done = clinie("search", write_space(space_content), "--home", tmp_path / "home", **environment)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error ")]
    assert f"--tracking-uri: {message.format(url=proxy.url)}" in line
    assert "Traceback" not in done.stderr
    assert "wrong-Secret" not in done.stderr
    assert proxy.forwarded == 0


@pytest.mark.slow
def test_all_processes_of_a_cluster_use_fetched_backbones(
    site: Site,
    hub: HubServer,
    tiny_files: dict[str, bytes],
    tmp_path: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
) -> None:
    hub.repositories["clinic/model"] = Repository(dict(tiny_files))
    source = BackboneSource(name="clinic/model", hub="clinic/model")
    (fetched,) = fetch_backbones([source], tmp_path / "backbones", "space.backbone")
    content = {**space_content, "study": "fetched", "budget": {"trials": 1, "epochs": 1}}
    content["space"] = {**content["space"], "backbone": "clinic/model", "window_tokens": 64}
    ray_token = Path(site.cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    environment = {
        **site.cluster.environment,
        "RAY_AUTH_TOKEN": ray_token,
        **site.secrets,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
    }
    environment |= {"CLINIE_BACKBONES": str(tmp_path / "backbones")}  # not in the environment of the nodes
    done = clinie("search", write_space(content), "--home", tmp_path / "home", "--json", **environment)
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["state"] == "complete"
    assert (site.folder / "cache/backbones" / fetched.key / "model.safetensors").is_file()
