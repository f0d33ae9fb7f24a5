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


def run_out_of_memory(*, can_recompute: bool, known: bool = True) -> tuple[list[tuple[int | None, bool]], str]:
    """Return micro-batch and recomputation of each retry of a trial that never fits, and its final reason."""
    tried: list[tuple[int | None, bool]] = []
    attempts, used = Attempts(), 16
    while True:
        shortage = MemoryShortage(used, 81_000.0, attempts.recomputation) if known else None
        decision = next_attempt(
            attempts,
            JobEnded("out_of_memory", "out of memory", shortage),
            epoch=1,
            micro_batch=16,
            can_recompute=can_recompute,
        )
        if isinstance(decision, TrialFailure):
            assert decision.kind == "infeasible"
            return tried, decision.reason
        attempts = decision
        assert attempts.micro_batch is not None
        used = attempts.micro_batch
        tried.append((used, attempts.recomputation))


@pytest.mark.parametrize("known", [True, False], ids=["reported", "killed"])
def test_a_memory_shortage_halves_the_micro_batch_and_then_enables_recomputation(known: bool) -> None:
    halved = [(8, False), (4, False), (2, False), (1, False)]
    assert run_out_of_memory(can_recompute=False, known=known)[0] == halved
    assert run_out_of_memory(can_recompute=True, known=known)[0] == [*halved, (1, True)]


def test_an_infeasible_trial_reports_all_attempts() -> None:
    assert run_out_of_memory(can_recompute=True)[1] == (
        "out of memory in each attempt: 16 windows at once (peak 81,000 MiB), 8 windows at once (peak 81,000 MiB),"
        " 4 windows at once (peak 81,000 MiB), 2 windows at once (peak 81,000 MiB), 1 window at once (peak 81,000 MiB),"
        " 1 window at once with recomputation (peak 81,000 MiB)"
    )
    killed = run_out_of_memory(can_recompute=False, known=False)[1]
    assert killed.endswith("1 window at once (process killed)")


def test_a_trial_that_recomputes_by_its_configuration_is_not_retried_with_recomputation() -> None:
    ended = JobEnded("out_of_memory", "", MemoryShortage(1, 900.0, recomputation=True))
    failure = next_attempt(Attempts(), ended, epoch=1, can_recompute=True)
    assert failure == TrialFailure(
        "infeasible", "out of memory in each attempt: 1 window at once with recomputation (peak 900 MiB)"
    )


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


def test_a_move_from_a_drained_node_costs_nothing() -> None:
    moved = JobEnded("moved", "the node of a worker process was drained")
    assert retry([moved] * 10) == Attempts()


def test_a_trial_without_memory_moves_to_the_next_larger_class_before_it_is_infeasible() -> None:
    ended = JobEnded("out_of_memory", "", MemoryShortage(1, 900.0, recomputation=True))
    attempts = Attempts(micro_batch=1, recomputation=True)
    moved = next_attempt(attempts, ended, epoch=1, classes=2)
    assert isinstance(moved, Attempts)
    assert (moved.moves, moved.micro_batch, moved.recomputation) == (1, None, False)
    halved = next_attempt(moved, JobEnded("out_of_memory", "", MemoryShortage(2, 1800.0)), epoch=1, classes=2)
    assert isinstance(halved, Attempts)
    assert (halved.moves, halved.micro_batch) == (1, 1)
    failure = next_attempt(halved, ended, epoch=1, classes=2)
    assert isinstance(failure, TrialFailure)
    assert failure.kind == "infeasible"
    assert failure.reason.count("window") == 3
