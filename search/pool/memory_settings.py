"""Settings that fitted into memory after a shortage, for later jobs that need about the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from search.trials.job import FittingMemory, Job

__all__ = ["MemorySettings"]


class MemorySettings:
    """Settings that fitted, by memory key.

    Args:
        known: Those of an earlier run of the search.
    """

    def __init__(self, known: Mapping[str, FittingMemory] | None = None) -> None:
        self._fitting = dict(known or {})

    def as_dict(self) -> dict[str, FittingMemory]:
        """Return the settings by memory key."""
        return dict(self._fitting)

    def add(self, job: Job) -> None:
        """Remember the settings of a job that has finished an epoch, if they result from a shortage."""
        if job.reduced and job.memory_key and job.micro_batch is not None:
            self._fitting[job.memory_key] = FittingMemory(job.micro_batch, job.recomputation)

    def reduce(self, job: Job) -> Job:
        """Return a job with at most the memory use that fitted an earlier job of its key after a shortage."""
        known = self._fitting.get(job.memory_key)
        if known is None:
            return job
        return replace(
            job,
            micro_batch=min(known.micro_batch, job.micro_batch or known.micro_batch),
            recomputation=job.recomputation or known.recomputation,
        )
