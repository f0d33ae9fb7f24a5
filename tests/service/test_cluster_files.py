"""The cluster files are valid for Ray and set a token, loopback addresses and pinned versions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "cluster.local.yaml")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    validate_config(prepare_config(copy.deepcopy(read(name))))


def test_ray_rejects_an_invalid_file() -> None:
    wrong = read("cluster.yaml") | {"hed_node_type": "head"}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", FILES)
def test_ray_requires_a_token_and_servers_listen_on_loopback(name: str) -> None:
    content = read(name)
    starts = [c for key in ("head_start_ray_commands", "worker_start_ray_commands") for c in content[key]]
    rays = [command for command in starts if "ray start" in command]
    assert len(rays) == 2
    assert all("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in command for command in rays)
    assert any("--dashboard-host=127.0.0.1" in command for command in rays)
    (server,) = [command for command in starts if "mlflow server" in command]
    assert "--host 127.0.0.1" in server
    assert not any("0.0.0.0" in command for command in starts)
    assert any(target.endswith(".clinie-ray-token") for target in content["file_mounts"])
    assert "chmod 600 ~/.clinie-ray-token" in content["setup_commands"]


@pytest.mark.parametrize("name", FILES)
def test_every_node_installs_the_pinned_versions(name: str) -> None:
    setup = read(name)["setup_commands"]
    assert any("pip install" in command and "-c ~/constraints.txt -e ~/clinie" in command for command in setup)


def test_a_head_without_cores_starts_several_processes_at_once() -> None:
    starts = read("cluster.yaml")["head_start_ray_commands"]
    assert any("RAY_worker_maximum_startup_concurrency=16" in command and "ray start" in command for command in starts)


def test_gpu_workers_are_spot_machines_and_scale_to_zero() -> None:
    content = read("cluster.yaml")
    gpu = content["available_node_types"]["gpu"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] == content["max_workers"]
