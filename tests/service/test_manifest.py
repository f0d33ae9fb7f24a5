"""Manifests are valid for KubeRay and Kubernetes, and contain no secrets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _get_custom_resources

import search

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteSpace = Callable[[Mapping[str, Any]], Path]
KUBERNETES = "1.31"
SCHEMA = json.loads((Path(search.__file__).parent / "cluster" / "rayjob.schema.json").read_text(encoding="utf-8"))


def test_a_manifest_is_valid_and_contains_no_secret(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path, clinie: RunClinie
) -> None:
    space = write_space(space_content | {"study": "My_Study.1", "resources": {"gpus_per_worker": 0.5}})
    secret = "postgresql://me:planted-word@host/ledger"
    done = clinie("manifest", space, "--workers", "3", "-o", tmp_path / "job.yaml", CLINIE_LEDGER=secret)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "job.yaml").read_text(encoding="utf-8")
    assert "planted-word" not in text
    settings, job = yaml.safe_load_all(text)
    kubernetes_validate.validate(settings, KUBERNETES, strict=True)
    jsonschema.validate(job, SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for name, group in (("head", cluster["headGroupSpec"]), ("workers", workers)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert workers["maxReplicas"] == 3
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert yaml.safe_load(settings["data"]["space.yaml"])["study"] == "My_Study.1"
    assert job["spec"]["entrypoint"].startswith("python -m search.cli search /etc/clinie/space.yaml --home /mnt/clinie")


def test_each_resource_class_has_a_group_of_pods_that_hold_a_trial(
    space_content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie
) -> None:
    classes = [
        {"name": "Small", "gpus_per_worker": "auto", "memory_gib": 24, "cpus_per_worker": 2, "concurrent_trials": 20},
        {"name": "node", "gpus_per_worker": 1, "workers_per_trial": 8, "sharded": True, "accelerator_type": "H100"},
    ]
    changes = {"formulation": "token_classification", "finetuning": {"choose": {"full": {"learning_rate": 1e-3}}}}
    content = space_content | {"resources": classes, "space": space_content["space"] | changes}
    done = clinie("manifest", write_space(content), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stderr
    settings, job = yaml.safe_load_all(done.stdout)
    jsonschema.validate(job, SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    sizes = {}
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        sizes[group["groupName"]] = (
            group["minReplicas"],
            group["maxReplicas"],
            limits["cpu"],
            limits["nvidia.com/gpu"],
        )
        assert {"name": "RAY_worker_maximum_startup_concurrency", "value": "16"} in container["env"]
        assert 10 < int(limits["memory"].removesuffix("Gi")) < 64
    # Eight small trials share a GPU, and three pods hold 20 of them.
    assert sizes == {"small": (0, 3, "16", "1"), "node": (0, 2, "8", "8")}
    shares = [own["gpus_per_worker"] for own in yaml.safe_load(settings["data"]["space.yaml"])["resources"]]
    assert shares == [0.125, 1.0]
    large = cluster["workerGroupSpecs"][1]
    known = _get_custom_resources({}, large["rayStartParams"], "node")  # as Ray's autoscaler reads them
    assert known == {"accelerator_type:H100": 1}


def test_a_space_whose_backbones_are_elsewhere_gets_a_default_of_memory(
    space_content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie
) -> None:
    content = space_content | {"backbones": {"tiny": {"folder": "/mnt/clinie/models/tiny"}}}
    done = clinie("manifest", write_space(content))
    assert done.returncode == 0
    assert done.stderr.startswith("note the memory of a trial is unknown, because the space cannot be planned here")
    _, job = yaml.safe_load_all(done.stdout)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "19Gi"}


def test_a_number_of_gpus_that_depends_on_the_cluster_is_an_error(
    space_content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie
) -> None:
    done = clinie("manifest", write_space(space_content | {"resources": {"gpus_per_worker": "auto"}}))
    assert done.returncode != 0
    assert "resources.gpus_per_worker: auto is resolved on the cluster" in done.stderr


def test_the_schema_rejects_an_unknown_key(
    space_content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie
) -> None:
    _, job = yaml.safe_load_all(clinie("manifest", write_space(space_content)).stdout)
    job["spec"]["rayClusterSpec"]["workerGroups"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMA)


def test_a_manifest_replaces_a_file_only_on_request(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path, clinie: RunClinie
) -> None:
    space = write_space(space_content)
    content = space.read_bytes()
    done = clinie("manifest", space, "-o", space)
    assert done.returncode == 2
    assert done.stderr == (
        f"error {space}: the file exists already; a new file; remove it, name another, or pass --overwrite\n"
    )
    assert space.read_bytes() == content
    target = tmp_path / "job.yaml"
    target.write_text("mine")
    assert clinie("manifest", space, "-o", target, "--overwrite").returncode == 0
    assert [part["kind"] for part in yaml.safe_load_all(target.read_text())] == ["ConfigMap", "RayJob"]
    assert clinie("manifest", space, "-o", "/dev/stdout").stdout == target.read_text()
