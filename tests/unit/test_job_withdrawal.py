"""Jobs whose trial a command stops or pauses."""

from __future__ import annotations

import asyncio

import pytest

from search.pool.job_queue import WITHDRAWN, JobQueue
from search.pool.withdrawal import JobWithdrawn, check_withdrawal, raise_if_withdrawn
from tests.unit.test_job_queue import NODE, PLACE, job, result, run, start


def test_a_waiting_job_that_is_withdrawn_ends_at_once() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job(0)))
        await queue.withdraw(0)
        assert await submitted == WITHDRAWN
        await start(queue.submit(job(1)))
        assert await queue.take(0, generation, 1) == job(1)

    run(test())


def test_a_running_job_ends_when_its_worker_has_noticed_the_withdrawal() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job(0)))
        await queue.take(0, generation, 1)
        noticed = await start(queue.await_withdrawal(job(0).id))
        assert not noticed.done()
        await queue.withdraw(0)
        assert await noticed is True
        assert not submitted.done()  # the worker may still write the trial's files
        await queue.end(0, job(0).id, WITHDRAWN)
        assert await submitted == WITHDRAWN

    run(test())


def test_a_job_is_withdrawn_between_two_epochs_too() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        submitted = await start(queue.submit(job(0)))
        await queue.take(0, generation, 1)
        reported = await start(queue.report(job(0).id, result(1)))
        assert await submitted == result(1)
        await queue.withdraw(0)
        following = await start(queue.next_report(job(0).id))
        assert await reported is False
        assert await following == WITHDRAWN

    run(test())


def test_the_withdrawal_of_a_job_does_not_concern_the_next_one_of_its_trial() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(job(0, 1)))
        await queue.take(0, generation, 1)
        await queue.withdraw(0)
        await queue.end(0, job(0, 1).id, WITHDRAWN)
        await queue.withdraw(0)  # repeated when no job is left
        await start(queue.submit(job(0, 2)))
        assert await queue.take(0, generation, 1) == job(0, 2)
        noticed = await start(queue.await_withdrawal(job(0, 2).id))
        await asyncio.sleep(0)
        assert not noticed.done()
        await queue.end(0, job(0, 2).id, WITHDRAWN)
        assert await noticed is False

    run(test())


def test_a_program_ends_by_an_error_after_the_withdrawal_of_its_job() -> None:
    raise_if_withdrawn()  # no job
    withdrawn: list[bool] = []
    with check_withdrawal(lambda: bool(withdrawn)):
        raise_if_withdrawn()
        withdrawn.append(True)
        with pytest.raises(JobWithdrawn):
            raise_if_withdrawn()
    raise_if_withdrawn()
