"""Retry policy: what a failure costs a trial, by the process that failed.

| failure                           | cost                                                     | the trial ends |
|-----------------------------------|----------------------------------------------------------|----------------|
| error in the training program     | one of ``MAX_TRIES`` tries                               | ``failed``     |
| worker process or its node lost   | nothing, unless ``MAX_TRIES`` are lost in one epoch      | ``failed``     |
| memory too short                  | a retry with less, then in a larger resource class       | ``infeasible`` |
| disk full                         | ends the search; the trial can be resumed                | ``disk_full``  |
| trial stopped or paused by command | a partial epoch                                          | by the command |
| Tune actor lost                   | nothing, up to ``MAX_ACTOR_LOSSES`` times                | ``failed``     |

A retried job resumes from the trial's last checkpoint. After a memory shortage it has half the micro-batch, and after
one with a single window it recomputes activations. Then it goes to the next larger resource class, if there is one.
All of this leaves the results unchanged up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.trials.job import JobEnded, MemoryShortage
from search.trials.result import TrialFailure

__all__ = ["MAX_ACTOR_LOSSES", "MAX_TRIES", "Attempts", "next_attempt"]

MAX_TRIES = 3
MAX_ACTOR_LOSSES = 20
"""Number of times that a trial may lose its Tune actor. The actor fails with its node, not because of the trial."""


@dataclass(frozen=True)
class Attempts:
    """Failures of a trial so far.

    Args:
        errors: Number of jobs that ended with an error.
        worker_losses: Epochs in which a worker was lost, one entry per loss.
        micro_batch: Windows per forward pass for the next job; None before the first memory shortage.
        recomputation: Whether the next job recomputes activations.
        shortages: Memory shortages of earlier jobs.
        moves: Number of times that the trial has moved to a larger resource class.
    """

    errors: int = 0
    worker_losses: tuple[int, ...] = ()
    micro_batch: int | None = None
    recomputation: bool = False
    shortages: tuple[MemoryShortage, ...] = ()
    moves: int = 0


def next_attempt(
    attempts: Attempts,
    ended: JobEnded,
    *,
    epoch: int,
    micro_batch: int = 1,
    can_recompute: bool = False,
    classes: int = 1,
) -> Attempts | TrialFailure:
    """Decide whether a trial is retried after a failed job.

    Args:
        attempts: Failures of the trial before this job.
        ended: End of the job.
        epoch: 1-based number of the epoch that the job was in.
        micro_batch: Largest number of windows per forward pass of the trial, for a job that ended before it reported
            its own.
        can_recompute: Whether activations can be recomputed although the configuration does not say so.
        classes: Number of resource classes that the trial may use, from its first one to the largest.

    Returns:
        The attempts including this one if the trial is retried, else the failure that ends the trial.

    Raises:
        ValueError: If the job has not failed.
    """
    match ended.cause:
        case "error":
            errors = attempts.errors + 1
            return TrialFailure("failed", ended.reason) if errors >= MAX_TRIES else replace(attempts, errors=errors)
        case "worker_lost":
            losses = (*attempts.worker_losses, epoch)
            if losses.count(epoch) >= MAX_TRIES:
                return TrialFailure("failed", f"{ended.reason}, {MAX_TRIES} times in epoch {epoch}")
            return replace(attempts, worker_losses=losses)
        case "moved":
            return attempts
        case "out_of_memory":
            return _reduce_memory(attempts, ended, micro_batch, can_recompute=can_recompute, classes=classes)
        case "disk_full":
            return TrialFailure("disk_full", ended.reason)
        case "withdrawn":
            return TrialFailure("withdrawn", ended.reason)
        case _:
            raise ValueError(f"a job that ended with {ended.cause!r} has not failed")


def _reduce_memory(
    attempts: Attempts, ended: JobEnded, micro_batch: int, *, can_recompute: bool, classes: int
) -> Attempts | TrialFailure:
    """Return the attempts with the next smaller use of memory or the next larger class, or the failure without any."""
    found = ended.shortage or MemoryShortage(None, None, attempts.recomputation)
    used = found.micro_batch or attempts.micro_batch or micro_batch
    shortages = (*attempts.shortages, replace(found, micro_batch=used))
    if used > 1:
        return replace(attempts, micro_batch=used // 2, shortages=shortages)
    if can_recompute and not attempts.recomputation and not found.recomputation:
        return replace(attempts, micro_batch=1, recomputation=True, shortages=shortages)
    if attempts.moves + 1 < classes:
        moves = attempts.moves + 1
        return replace(attempts, micro_batch=None, recomputation=False, shortages=shortages, moves=moves)
    return TrialFailure("infeasible", "out of memory in each attempt: " + ", ".join(map(_describe, shortages)))


def _describe(shortage: MemoryShortage) -> str:
    windows = f"{shortage.micro_batch} window{'s' if shortage.micro_batch != 1 else ''} at once"
    recomputation = " with recomputation" if shortage.recomputation else ""
    peak = "process killed" if shortage.peak_memory_mb is None else f"peak {shortage.peak_memory_mb:,.0f} MiB"
    return f"{windows}{recomputation} ({peak})"
