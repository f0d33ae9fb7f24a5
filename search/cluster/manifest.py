"""A KubeRay RayJob for a search: Kubernetes starts a Ray cluster for the job, scales it, and deletes it afterwards.

Source: API reference of KubeRay's ray.io/v1; ``rayjob.schema.json`` in this folder is a schema of the used part.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import yaml

from clinie_core.errors import fail
from search.cluster.submission import ENVIRONMENT, SPACE_FILE, SearchJob, render_space
from search.config.space_file import SpaceFile

__all__ = ["render_ray_job"]

MOUNT = "/mnt/clinie"
SPACE_FOLDER = "/etc/clinie"
TTL_SECONDS = 600
HEAD = {"cpu": "4", "memory": "16Gi"}
WORKER_MEMORY_GIB = 16
USER = 1000


def render_ray_job(
    job: SearchJob, file: SpaceFile, *, image: str, volume_claim: str, secret: str, workers: int
) -> list[dict[str, Any]]:
    """Return the manifests of a search: a ConfigMap with its space file, and the RayJob.

    Args:
        job: The search.
        file: Its space file; ``resources`` sets the CPUs and GPUs of a worker pod.
        image: Container image with clinie.
        volume_claim: Persistent volume claim that all pods mount.
        secret: Secret whose keys become environment variables of all pods; the manifest contains only its name.
        workers: Maximum number of worker pods.

    Raises:
        InputError: If the number of GPUs is ``auto``.
    """
    name = f"clinie-{file.study}".lower().replace("_", "-").replace(".", "-")[:50].rstrip("-")
    resources = file.resources
    if resources.gpus_per_worker == "auto":
        found = "auto is resolved on the cluster, which this manifest creates"
        fail("resources.gpus_per_worker", found, allowed="a number from 0 to 1")
    worker_size = {"cpu": f"{max(1, round(resources.cpus_per_worker))}", "memory": f"{WORKER_MEMORY_GIB}Gi"}
    if resources.gpus_per_worker:
        worker_size["nvidia.com/gpu"] = "1"

    def make_template(container: str, size: dict[str, str]) -> dict[str, Any]:
        return {
            "spec": {
                "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
                "containers": [
                    {
                        "name": container,
                        "image": image,
                        "resources": {"requests": size, "limits": size},
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
                            "groupName": "workers",
                            "replicas": 0,
                            "minReplicas": 0,
                            "maxReplicas": workers,
                            "rayStartParams": {},
                            "template": make_template("ray-worker", worker_size),
                        }
                    ],
                },
            },
        },
    ]
