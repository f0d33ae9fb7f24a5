"""Jobs of the worker pool: one attempt to train a trial, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["DEFAULT_CLASS", "EndCause", "FittingMemory", "Job", "JobEnded", "MemoryShortage"]

DEFAULT_CLASS = "default"
"""Name of the only resource class of a space that names none."""
EndCause = Literal[
    "finished", "error", "worker_lost", "out_of_memory", "disk_full", "moved", "withdrawn", "pool_closed"
]
"""Cause of a job's end. ``worker_lost``: a worker process died or its node failed, which may not be the trial's
fault. ``moved``: the node will end soon, so another group continues the trial. ``withdrawn``: a command stops or pauses
the trial. ``finished``: the program returned. ``pool_closed``: the search has ended."""


@dataclass(frozen=True)
class Job:
    """One attempt to train a trial, from its start or from its last checkpoint.

    Args:
        id: Unique identifier; each attempt of a trial is a new job.
        number: Number of the trial.
        config: Configuration of the trial as JSON.
        backbone: Name of its backbone. The queue prefers a worker group that has loaded this backbone.
        folder: Folder for its checkpoints; None writes none.
        micro_batch: Windows per forward pass of one process; None lets the process choose.
        recomputation: Whether to recompute activations even if the configuration does not say so.
        memory_key: Identifies jobs that need about the same memory per window; empty if unknown.
        reduced: Whether ``micro_batch`` and ``recomputation`` result from a memory shortage. The queue remembers such
            values, once they fit, for later jobs of the same key.
        resources: Name of the resource class whose groups may train the trial.
        sharded: Whether to shard the model over the processes even if the configuration does not say so.
    """

    id: str
    number: int
    config: str
    backbone: str
    folder: Path | None = None
    micro_batch: int | None = None
    recomputation: bool = False
    memory_key: str = ""
    reduced: bool = False
    resources: str = DEFAULT_CLASS
    sharded: bool = False


@dataclass(frozen=True)
class FittingMemory:
    """Settings with which a job fitted into memory after a shortage.

    Args:
        micro_batch: Windows per forward pass of one process.
        recomputation: Whether activations were recomputed.
    """

    micro_batch: int
    recomputation: bool


@dataclass(frozen=True)
class MemoryShortage:
    """Memory use of a job that did not fit into memory.

    Args:
        micro_batch: Windows per forward pass of one process; None if the process ended before it reported them.
        peak_memory_mb: Peak memory of one process, in MiB; None as for ``micro_batch``.
        recomputation: Whether activations were recomputed.
    """

    micro_batch: int | None
    peak_memory_mb: float | None
    recomputation: bool = False


@dataclass(frozen=True)
class JobEnded:
    """End of a job without a further epoch.

    Args:
        cause: Cause of the end.
        reason: One line without document text; empty for a job that finished.
        shortage: Memory use, if the cause is ``out_of_memory``.
    """

    cause: EndCause
    reason: str = ""
    shortage: MemoryShortage | None = None
