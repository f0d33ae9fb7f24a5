"""Fixtures of the service tests: a trained checkpoint and an S3 server."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.training.train import EpochReport, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tiny_backbone: Any) -> tuple[Path, list[Any]]:
    """A checkpoint, with its configuration and the reports of its epochs."""
    folder = tmp_path_factory.mktemp("trained")
    config = TrialConfig(
        backbone=tiny_backbone,
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name="lora", parameters={"learning_rate": 3e-3, "rank": 4}),
        epochs=3,
        window_tokens=96,
        window_overlap=16,
        precision="float32",
    )
    reports: list[EpochReport] = []
    train(config, corpus, folder=folder, on_epoch=lambda report: reports.append(report) or True)  # type: ignore[func-returns-value]
    return folder / "best", [config, reports]


S3_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED4711", "AWS_SECRET_ACCESS_KEY": "s3-Secret-4712"}


@pytest.fixture(scope="session")
def s3(
    free_port: Callable[[], int],
    wait_until: Callable[[Callable[[], bool]], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, str]]:
    """Environment variables for moto's S3 server, which has a bucket ``notes``."""
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
