"""The program of a worker: train one configuration with clinie_core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from search.pool.system_metrics import SystemMonitor
from search.pool.withdrawal import raise_if_withdrawn
from search.pool.worker import OnReport, Program
from search.storage.trial_store import TrialStore
from search.trials.job import Job
from search.trials.result import EpochResult

if TYPE_CHECKING:
    import torch

    from clinie_core.training.train import EpochReport

__all__ = ["TrainingProgram", "count_workers_of_node"]


@dataclass(frozen=True)
class TrainingProgram:
    """Factory of the training program; called once in each worker process.

    Args:
        corpus: Reference to the train and dev splits in Ray's object store, in a tuple so that Ray does not
            fetch it for every call.
        trials_url: Object storage for the files that a retry needs; None uses the job's folder, which all nodes
            must then share.
    """

    corpus: tuple[ray.ObjectRef[Corpus], ...]
    trials_url: str | None = None

    @classmethod
    def share(cls, corpus: Corpus, trials_url: str | None = None) -> TrainingProgram:
        """Put a corpus into Ray's object store, where every worker process reads it."""
        return cls((ray.put(corpus),), trials_url)

    def __call__(self, device: torch.device) -> Program:
        """Import the packages for training, fetch the corpus and create the model cache of this process."""
        from clinie_core.backbones.weights import import_model_classes
        from clinie_core.modeling.distributed import DistributedContext
        from clinie_core.modeling.model_cache import ModelCache, compute_cache_limit
        from clinie_core.training.train import train
        from search.pool.gpu_metrics import GpuSampler, find_gpu

        import_model_classes()  # now instead of in the first job, because the caller suspends garbage collection
        corpus: Corpus = ray.get(self.corpus[0])
        cache = ModelCache(compute_cache_limit(count_workers_of_node()))
        distributed = DistributedContext.current(device)
        gpu = GpuSampler(find_gpu(device))
        store = TrialStore(self.trials_url) if self.trials_url else None

        def run(job: Job, on_report: OnReport) -> None:
            with _open_working_folder(job, store) as folder, SystemMonitor(gpu) as monitor:

                def on_epoch(report: EpochReport) -> bool:
                    if store is not None and folder is not None:
                        store.save(job.number, folder)
                    return on_report(to_epoch_result(report, monitor.averages()))

                config = TrialConfig.model_validate_json(job.config)
                train(
                    config.model_copy(update={"sharded": config.sharded or job.sharded}),
                    corpus,
                    cache=cache,
                    distributed=distributed,
                    folder=folder,
                    micro_batch=job.micro_batch,
                    recomputation=job.recomputation,
                    on_epoch=on_epoch,
                    before_step=raise_if_withdrawn,
                )

        return run


def count_workers_of_node() -> int:
    """Return how many workers with the resources of this one fit on its node."""
    context = ray.get_runtime_context()
    node = next(n["Resources"] for n in ray.nodes() if n["NodeID"] == context.get_node_id())
    own = {name: amount for name, amount in context.get_assigned_resources().items() if amount and name in node}
    return max(1, int(min((node[name] / amount for name, amount in own.items()), default=1)))


@contextmanager
def _open_working_folder(job: Job, store: TrialStore | None) -> Iterator[Path | None]:
    """Provide the folder of a job's checkpoints: its own, or a temporary copy of its files in object storage."""
    if store is None or job.folder is None:
        yield job.folder
        return
    with tempfile.TemporaryDirectory(prefix="clinie-trial-") as place:
        folder = Path(place) / f"{job.number:05d}"
        store.fetch(job.number, folder)
        yield folder


def to_epoch_result(report: EpochReport, system_metrics: Mapping[str, float]) -> EpochResult:
    """Convert a training report to the result that leaves the worker.

    Args:
        report: Report of one epoch.
        system_metrics: Metrics of the machine during the epoch, added to those of the report.
    """
    return EpochResult(report.epoch, {**report.metrics, **system_metrics}, report.finished)
