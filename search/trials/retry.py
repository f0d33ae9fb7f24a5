"""Retry policy: what a failure costs a trial, by the process that failed.

| failure                           | cost                                                     | the trial ends |
|-----------------------------------|----------------------------------------------------------|----------------|
| error in the training program     | one of ``MAX_TRIES`` tries                               | ``failed``     |
| worker process or its node lost   | nothing, unless ``MAX_TRIES`` are lost in one epoch      | ``failed``     |
| memory too short                  | one retry with half the micro-batch                      | ``infeasible`` |
| disk full                         | ends the search; the trial can be resumed                | ``disk_full``  |
| Tune actor lost                   | nothing, up to ``MAX_ACTOR_LOSSES`` times                | ``failed``     |

A retried job resumes from the trial's last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.trials.job import JobEnded
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
    """

    errors: int = 0
    worker_losses: tuple[int, ...] = ()
    micro_batch: int | None = None


def next_attempt(attempts: Attempts, ended: JobEnded, *, epoch: int) -> Attempts | TrialFailure:
    """Decide whether a trial is retried after a failed job.

    Args:
        attempts: Failures of the trial before this job.
        ended: End of the job.
        epoch: 1-based number of the epoch that the job was in.

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
        case "out_of_memory":
            if ended.shortage is None or ended.shortage.micro_batch == 1 or attempts.micro_batch is not None:
                return TrialFailure("infeasible", ended.reason)
            return replace(attempts, micro_batch=ended.shortage.micro_batch // 2)
        case "disk_full":
            return TrialFailure("disk_full", ended.reason)
        case _:
            raise ValueError(f"a job that ended with {ended.cause!r} has not failed")
