"""A KubeRay RayJob for a search: Kubernetes starts a Ray cluster for the job, scales it, and deletes it afterwards.

Source: API reference of KubeRay's ray.io/v1; ``rayjob.schema.json`` in this folder is a schema of the used part.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from search.cluster.submission import ENVIRONMENT, SPACE_FILE, SearchJob, render_space
from search.config.resources import Resources
from search.config.space_file import SpaceFile

__all__ = ["UNKNOWN_MEMORY_MB", "render_ray_job"]

MOUNT = "/mnt/clinie"
SPACE_FOLDER = "/etc/clinie"
TTL_SECONDS = 600
HEAD = {"cpu": "4", "memory": "16Gi"}
WORKER_GIB = 3.0
"""Main memory of a worker process without its model: Python, torch and the context of CUDA."""
NODE_GIB = 2.0
"""Main memory of Ray's own processes in a pod."""
OBJECT_STORE_SHARE = 0.3
"""Share of a pod's memory that Ray reserves for its object store."""
UNKNOWN_MEMORY_MB = 8192.0
"""Memory of a trial's process that is assumed if it cannot be estimated, in MiB."""
USER = 1000
STARTUP = {"RAY_worker_maximum_startup_concurrency": "16"}
"""Ray starts as many processes at once as a node has cores, and the head has none."""


def render_ray_job(
    job: SearchJob,
    file: SpaceFile,
    *,
    image: str,
    volume_claim: str,
    secret: str,
    workers: int,
    memory_mb: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return the manifests of a search: a ConfigMap with its space file, and the RayJob.

    Args:
        job: The search.
        file: Its space file, without ``gpus_per_worker: auto``. Each resource class has a group of worker pods.
        image: Container image with clinie.
        volume_claim: Persistent volume claim that all pods mount.
        secret: Secret whose keys become environment variables of all pods; the manifest contains only its name.
        workers: Maximum number of worker pods of a class that does not state ``concurrent_trials``.
        memory_mb: Estimated main memory of the model of a worker process in MiB, by resource class.
    """
    name = f"clinie-{file.study}".lower().replace("_", "-").replace(".", "-")[:50].rstrip("-")

    def make_template(container: str, size: dict[str, str]) -> dict[str, Any]:
        return {
            "spec": {
                "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
                "containers": [
                    {
                        "name": container,
                        "image": image,
                        "resources": {"requests": size, "limits": size},
                        "env": [{"name": key, "value": value} for key, value in STARTUP.items()],
                        "envFrom": [{"secretRef": {"name": secret}}],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [
                            {"name": "shared", "mountPath": MOUNT},
                            {"name": "space", "mountPath": SPACE_FOLDER, "readOnly": True},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "shared", "persistentVolumeClaim": {"claimName": volume_claim}},
                    {"name": "space", "configMap": {"name": name}},
                ],
            }
        }

    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {SPACE_FILE: render_space(file)}},
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "clinie"}},
            "spec": {
                "entrypoint": job.make_entrypoint(SPACE_FOLDER),
                "runtimeEnvYAML": yaml.safe_dump({"env_vars": ENVIRONMENT}),
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": TTL_SECONDS,
                "backoffLimit": 0,
                "rayClusterSpec": {
                    "rayVersion": version("ray"),
                    "enableInTreeAutoscaling": True,
                    "headGroupSpec": {
                        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                        "template": make_template("ray-head", HEAD),
                    },
                    "workerGroupSpecs": [
                        {
                            "groupName": _make_group_name(own, len(file.resources)),
                            "replicas": 0,
                            "minReplicas": 0,
                            "maxReplicas": _count_pods(own, workers),
                            "rayStartParams": _make_start_params(own),
                            "template": make_template("ray-worker", _make_pod_size(own, memory_mb)),
                        }
                        for own in file.resources
                    ],
                },
            },
        },
    ]


def _make_group_name(own: Resources, classes: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", own.name.lower()).strip("-") if classes > 1 else "workers"


def _count_trials_per_pod(own: Resources) -> int:
    """Return how many trials share the GPU of a pod; a whole trial has a pod otherwise."""
    return int(1 / own.gpu_share + 1e-6) if 0 < own.gpu_share < 1 else 1


def _count_pods(own: Resources, workers: int) -> int:
    trials = own.concurrent_trials
    return workers if trials is None else math.ceil(trials / _count_trials_per_pod(own))


def _make_pod_size(own: Resources, memory_mb: Mapping[str, float]) -> dict[str, str]:
    """Return the CPUs, GPUs and memory of a pod that holds all workers of a trial, or several trials on one GPU."""
    workers = own.workers_per_trial * _count_trials_per_pod(own)
    model = memory_mb.get(own.name, UNKNOWN_MEMORY_MB) / 1024
    if own.memory_gib is not None and not own.gpu_share:
        model = own.memory_gib
    models = model if own.gpu_share else workers * model  # processes with GPUs share the mapped weights of their node
    memory = (models + workers * WORKER_GIB + NODE_GIB) / (1 - OBJECT_STORE_SHARE)
    size = {"cpu": f"{math.ceil(workers * own.cpus_per_worker)}", "memory": f"{math.ceil(memory)}Gi"}
    if own.gpu_share:
        size["nvidia.com/gpu"] = f"{math.ceil(workers * own.gpu_share - 1e-6)}"
    return size


def _make_start_params(own: Resources) -> dict[str, str]:
    """Return parameters of ``ray start``: the autoscaler must know the type of a GPU before the pod exists."""
    if own.accelerator_type is None:
        return {}
    resources = json.dumps({f"accelerator_type:{own.accelerator_type}": 1})
    return {"resources": json.dumps(resources)}
