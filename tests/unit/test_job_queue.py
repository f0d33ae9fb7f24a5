"""The job queue in one event loop, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from search.pool.job_queue import JobQueue
from search.trials.job import Job, JobEnded
from search.trials.result import EpochResult

Value = TypeVar("Value")
NODE = "node-a"
PLACE = "node 10.0.0.1, GPU 3"
WORKER_LOST = JobEnded("worker_lost", "a worker process died")
POOL_CLOSED = JobEnded("pool_closed", "the worker pool has closed")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


async def start(call: Coroutine[Any, Any, Value]) -> asyncio.Task[Value]:
    """Start a call and let it run until it waits."""
    task = asyncio.create_task(call)
    for _ in range(10):
        await asyncio.sleep(0)
    return task


def job(number: int = 0, attempt: int = 1, backbone: str = "tiny") -> Job:
    return Job(f"job-{number}-{attempt}", number, "{}", backbone)


def result(epoch: int, *, finished: bool = False) -> EpochResult:
    return EpochResult(epoch, {"strict_f1": epoch / 10}, finished)


def test_a_worker_waits_after_each_epoch_until_the_next_one_is_requested() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job()))
        assert await queue.take(0, generation, 1) == job()
        reported = await start(queue.report(job().id, result(1)))
        assert await submitted == result(1)
        assert not reported.done()
        following = await start(queue.next_report(job().id))
        assert await reported is True
        assert await queue.report(job().id, result(2, finished=True)) is False
        assert await following == result(2, finished=True)

    run(test())


def test_a_cancelled_job_ends_at_its_next_report() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(job()))
        await queue.take(0, generation, 1)
        reported = await start(queue.report(job().id, result(1)))
        await queue.cancel(job().id)
        assert await reported is False
        assert await queue.report(job().id, result(2)) is False

    run(test())


def test_a_waiting_job_that_is_cancelled_is_not_taken() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(job(0)))
        await queue.cancel(job(0).id)
        await start(queue.submit(job(1)))
        assert await queue.take(0, generation, 1) == job(1)

    run(test())


def test_a_group_that_joins_again_loses_the_job_of_its_earlier_generation() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        first = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job()))
        await queue.take(0, first, 1)
        second = await queue.join(0, NODE, PLACE, 0)
        assert second == first + 1
        assert await submitted == WORKER_LOST

    run(test())


def test_a_call_of_an_earlier_generation_receives_no_job() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        first = await queue.join(0, NODE, PLACE, 0)
        stale = await start(queue.take(0, first, 1))
        second = await queue.join(0, NODE, PLACE, 0)
        assert await stale is None
        await start(queue.submit(job()))
        assert await queue.take(0, second, 1) == job()

    run(test())


def test_a_retried_trial_waits_until_no_group_trains_it() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generations = [await queue.join(group, NODE, PLACE, 0) for group in range(2)]
        await start(queue.submit(job(0, attempt=1)))
        await queue.take(0, generations[0], 1)
        await start(queue.submit(job(0, attempt=2)))
        taken = await start(queue.take(1, generations[1], 1))
        assert not taken.done()
        await queue.end(0, job(0, attempt=1).id, JobEnded("finished"))
        assert await taken == job(0, attempt=2)

    run(test())


def test_a_group_prefers_a_job_whose_backbone_it_has_loaded() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(job(0, backbone="small")))
        await queue.take(0, generation, 1)
        await queue.end(0, job(0).id, JobEnded("finished"))
        await start(queue.submit(job(1, backbone="large")))
        await start(queue.submit(job(2, backbone="small")))
        assert (await queue.take(0, generation, 1)) == job(2, backbone="small")
        await queue.end(0, job(2).id, JobEnded("finished"))
        assert (await queue.take(0, generation, 1)) == job(1, backbone="large")

    run(test())


def test_a_restarted_queue_waits_until_every_group_has_joined() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2, restarted=True)
        first = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(job()))
        taken = await start(queue.take(0, first, 1))
        assert not taken.done()
        await queue.join(1, NODE, PLACE, 0)
        assert await taken == job()

    run(test())


@pytest.mark.parametrize("cause", ["error", "finished"])
def test_the_end_of_a_job_reaches_its_tune_actor(cause: Any) -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job()))
        await queue.take(0, generation, 1)
        await queue.end(0, job().id, JobEnded(cause, "a reason"))
        assert await submitted == JobEnded(cause, "a reason")

    run(test())


def test_closing_ends_groups_and_jobs() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        followed = await start(queue.follow(0, generation, 1, NODE))
        submitted = await start(queue.submit(job()))
        await queue.take(0, generation, 1)
        waiting = await start(queue.take(0, generation, 2))
        await queue.close()
        assert await submitted == POOL_CLOSED
        assert await waiting is None
        assert await followed is None
        assert await queue.submit(job(1)) == POOL_CLOSED

    run(test())


def test_requests_are_counted_per_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.take(0, generation, 1))
        assert [await queue.request_count(group) for group in range(2)] == [1, 0]
        await queue.close()

    run(test())


def test_no_more_groups_start_than_trials_are_left() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 3, unfinished=2)
        starts = [await start(queue.await_start(group)) for group in range(3)]
        assert [call.done() for call in starts] == [True, True, False]
        await queue.expect(3)
        assert await starts[2] is True

    run(test())


def test_an_idle_group_ends_when_no_trial_is_left_for_it() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2, unfinished=2)
        generations = [await queue.join(group, f"node-{group}", PLACE, 0) for group in range(2)]
        submitted = await start(queue.submit(job()))
        assert await queue.take(0, generations[0], 1) == job()
        idle = await start(queue.take(1, generations[1], 1))
        assert not idle.done()
        await queue.expect(1)
        assert await idle is None
        assert (await queue.describe()).up == {"default": 1}
        assert not submitted.done()

    run(test())


def test_a_group_that_waits_for_a_node_is_told_when_it_is_not_needed_any_more() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2, unfinished=2)
        assert await queue.await_start(0)
        assert await queue.await_start(1)
        assert await queue.is_needed(1) is True
        state = await queue.describe()
        assert (state.unplaced, state.up) == ({"default": 1}, {"default": 0})
        await queue.join(0, NODE, PLACE, 0)
        await queue.expect(1)
        assert await queue.is_needed(1) is False

    run(test())


def test_a_group_sleeps_when_its_node_is_lost_and_its_trial_goes_to_the_next_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2, unfinished=1)
        assert await queue.await_start(0)
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job()))
        assert await queue.take(0, generation, 1) == job()
        await queue.drop_lost_nodes({"node-b"})
        assert await submitted == WORKER_LOST
        assert await queue.await_start(1) is True

    run(test())


def test_a_trial_on_a_drained_node_ends_its_epoch_and_moves() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job()))
        assert await queue.take(0, generation, 1) == job()
        await queue.drain_nodes({NODE})
        reported = await start(queue.report(job().id, result(1)))
        assert await submitted == result(1)
        assert (await queue.next_report(job().id)).cause == "moved"  # type: ignore[union-attr]
        assert await reported is False
        await queue.end(0, job().id, JobEnded("finished"))
        await start(queue.submit(job(attempt=2)))
        assert await queue.take(0, generation, 1) is None, "the group ends, and another takes the job"
        other = await queue.join(1, "node-b", PLACE, 0)
        assert await queue.take(1, other, 1) == job(attempt=2)

    run(test())
