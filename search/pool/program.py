"""What a warm worker runs for a job: train a configuration with clinie_core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from search.pool.queue import Job
from search.pool.system_metrics import SystemMonitor
from search.pool.worker import OnReport, Program
from search.storage.trial_store import TrialStore
from search.trials.result import EPOCH, METRIC_NAMES

__all__ = ["TrainingProgram"]


@dataclass(frozen=True)
class TrainingProgram:
    """Makes, in each worker process, the program that trains.

    Args:
        corpus: Reference of the train and dev splits in Ray's object store, in a list so that Ray
            does not fetch it for every call.
        trials_url: Where trials keep what a retry needs; None for the job's folder, which all nodes then share.
    """

    corpus: tuple[ray.ObjectRef[Corpus], ...]
    trials_url: str | None = None

    @classmethod
    def share(cls, corpus: Corpus, trials_url: str | None = None) -> TrainingProgram:
        """Put a corpus into Ray's object store, from which every worker process reads it."""
        return cls((ray.put(corpus),), trials_url)

    def __call__(self) -> Program:
        """Fetch the corpus and make the shelf, once for the life of the process."""
        from clinie_core.modeling.distributed import DistributedContext
        from clinie_core.modeling.model_cache import ModelCache
        from clinie_core.training.train import EpochReport, train

        corpus: Corpus = ray.get(self.corpus[0])
        shelf = ModelCache()
        store = TrialStore(self.trials_url) if self.trials_url else None

        def run(job: Job, on_report: OnReport) -> None:
            with _working_folder(job, store) as folder, SystemMonitor() as monitor:

                def on_epoch(report: EpochReport) -> bool:
                    if store is not None and folder is not None:
                        store.save(job.number, folder)
                    return on_report(to_tune_result(replace(report, metrics=report.metrics | monitor.averages())))

                train(
                    TrialConfig.model_validate_json(job.config),
                    corpus,
                    shelf=shelf,
                    world=DistributedContext.current(),
                    folder=folder,
                    micro_batch=job.micro_batch,
                    on_epoch=on_epoch,
                )

        return run


@contextmanager
def _working_folder(job: Job, store: TrialStore | None) -> Iterator[Path | None]:
    """Where a job finds and leaves its checkpoints: its folder, or a passing one for what the store has."""
    if store is None or job.folder is None:
        yield Path(job.folder) if job.folder else None
        return
    with tempfile.TemporaryDirectory(prefix="clinie-trial-") as place:
        folder = Path(place) / f"{job.number:05d}"
        store.fetch(job.number, folder)
        yield folder


def to_tune_result(report: Any) -> dict[str, Any]:
    """An epoch's report as a Tune result."""
    content = asdict(report)
    metrics = content.pop("metrics")
    return {**metrics, METRIC_NAMES: ",".join(metrics), EPOCH: content.pop("epoch"), **content}
