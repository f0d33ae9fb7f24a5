"""Prediction in several processes: replicas of Ray Serve on this machine or on a cluster.

Requests do not pass through Ray Serve's HTTP proxy, which is not started: the HTTP server of this process sends
batches of documents to the replicas.
"""

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import serve

from clinie_core.config import Task
from clinie_core.data.document import Document
from clinie_core.garbage_collection import suspend_collection
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from search.cluster.devices import get_cluster_gpus, get_granted_device, limit_memory
from search.cluster.session import ray_session

__all__ = ["ReplicaBackend", "run_replicas"]

APPLICATION = "clinie"


class Replica:
    """Extractor in a process of Ray Serve.

    Args:
        folder: Folder of the extractor, which all nodes can read.
        threads: Number of CPU cores for predictions.
        gpus: Number or fraction of GPUs that it may use.
    """

    def __init__(self, folder: str, threads: int, gpus: float) -> None:
        import torch

        torch.set_num_threads(threads)
        device = get_granted_device()
        limit_memory(device, gpus)
        with suspend_collection():
            self._extractor = Extractor.load(Path(folder), distributed=DistributedContext(device=device))
        self._extractor.convert_weights()

    def get_task(self) -> Task:
        """Return the task of the model."""
        return self._extractor.task

    def annotate(self, documents: Sequence[Document]) -> list[Document]:
        """Predict the annotations of documents, in their order."""
        return self._extractor.annotate(documents)


class ReplicaBackend:
    """Replicas of Ray Serve.

    Args:
        replicas: Number of replicas.
        threads: Number of CPU cores of each.
        gpus: Number or fraction of GPUs of each.
    """

    def __init__(self, replicas: int, threads: int, gpus: float) -> None:
        self.parallel = replicas
        self._threads = threads
        self._gpus = gpus
        self._handle: Any = None

    async def load(self, folder: Path) -> Task:
        """Start the replicas, or replace them one by one by replicas of another version."""
        import asyncio

        deployment = serve.deployment(
            Replica,
            num_replicas=self.parallel,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": self._threads, "num_gpus": self._gpus},
        )
        application = deployment.bind(str(folder), self._threads, self._gpus)
        self._handle = await asyncio.to_thread(_deploy, application)
        task: Task = await self._handle.get_task.remote()
        return task

    async def predict(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Predict the annotations of documents, in their order."""
        found: list[Document] = await self._handle.annotate.remote(list(documents))
        return found


def _deploy(application: Any) -> Any:
    return serve.run(
        application,
        name=APPLICATION,
        route_prefix=None,
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )


@contextmanager
def run_replicas(home: Path, replicas: int, threads: int, gpus: float | None) -> Iterator[ReplicaBackend]:
    """Start Ray Serve within this context, without its HTTP proxy.

    Args:
        home: Home folder; Ray's working folder.
        replicas: Number of replicas.
        threads: Number of CPU cores of each.
        gpus: Number or fraction of GPUs of each; None for one GPU if there is one.
    """
    with ray_session(home):
        if gpus is None:
            gpus = 1.0 if get_cluster_gpus() else 0.0
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled")
        try:
            yield ReplicaBackend(replicas, threads, gpus)
        finally:
            # A local Ray ends with all its processes; ending Serve first would print messages about killed actors.
            if os.environ.get("RAY_ADDRESS"):
                serve.shutdown()
