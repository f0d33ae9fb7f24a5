"""The retry policy: what each kind of failure costs a trial."""

from __future__ import annotations

import pytest

from search.trials.job import EndCause, JobEnded, MemoryShortage
from search.trials.result import TrialFailure
from search.trials.retry import MAX_TRIES, Attempts, next_attempt

ERROR = JobEnded("error", "ValueError at trainer.py:1 (train)")
WORKER_LOST = JobEnded("worker_lost", "a worker process died")


def memory_shortage(micro_batch: int) -> JobEnded:
    return JobEnded("out_of_memory", f"out of memory with {micro_batch} windows", MemoryShortage(micro_batch, 900.0))


def retry(ended: list[JobEnded], epochs: list[int] | None = None) -> Attempts | TrialFailure:
    """Apply the policy to each job in turn and return the last decision."""
    attempts = Attempts()
    for job, epoch in zip(ended, epochs or [1] * len(ended), strict=True):
        decision = next_attempt(attempts, job, epoch=epoch)
        if isinstance(decision, TrialFailure):
            return decision
        attempts = decision
    return attempts


def test_an_error_costs_one_try() -> None:
    assert isinstance(retry([ERROR] * (MAX_TRIES - 1)), Attempts)
    assert retry([ERROR] * MAX_TRIES) == TrialFailure("failed", ERROR.reason)


def test_errors_count_over_all_epochs() -> None:
    epochs = list(range(1, MAX_TRIES + 1))
    assert retry([ERROR] * MAX_TRIES, epochs) == TrialFailure("failed", ERROR.reason)


def test_lost_workers_in_different_epochs_cost_nothing() -> None:
    epochs = [epoch for epoch in range(1, 11) for _ in range(MAX_TRIES - 1)]
    attempts = retry([WORKER_LOST] * len(epochs), epochs)
    assert isinstance(attempts, Attempts)
    assert attempts.errors == 0


def test_workers_lost_again_and_again_in_one_epoch_end_the_trial() -> None:
    failure = retry([WORKER_LOST] * MAX_TRIES, [4] * MAX_TRIES)
    assert failure == TrialFailure("failed", "a worker process died, 3 times in epoch 4")


def test_a_lost_worker_costs_none_of_the_tries_for_errors() -> None:
    assert isinstance(retry([ERROR, WORKER_LOST, ERROR, WORKER_LOST]), Attempts)


def test_a_memory_shortage_is_retried_once_with_half_the_micro_batch() -> None:
    assert retry([memory_shortage(16)]) == Attempts(micro_batch=8)
    failure = retry([memory_shortage(16), memory_shortage(8)])
    assert failure == TrialFailure("infeasible", "out of memory with 8 windows")


def test_a_single_window_that_does_not_fit_is_infeasible_at_once() -> None:
    assert retry([memory_shortage(1)]) == TrialFailure("infeasible", "out of memory with 1 windows")


def test_the_smaller_micro_batch_is_used_after_further_failures() -> None:
    attempts = retry([memory_shortage(16), ERROR, WORKER_LOST])
    assert isinstance(attempts, Attempts)
    assert attempts.micro_batch == 8


def test_a_full_disk_is_not_retried() -> None:
    ended = JobEnded("disk_full", "trials/00001 cannot be written")
    assert retry([ended]) == TrialFailure("disk_full", ended.reason)


@pytest.mark.parametrize("cause", ["finished", "pool_closed"])
def test_a_job_that_has_not_failed_is_rejected(cause: EndCause) -> None:
    with pytest.raises(ValueError, match="has not failed"):
        next_attempt(Attempts(), JobEnded(cause), epoch=1)
