"""Lost jobs, faulty groups and shortages of memory in the job queue, without Ray."""

from __future__ import annotations

from dataclasses import replace

from search.pool.job_losses import MAX_LOSSES, MAX_LOST_TRIALS
from search.pool.job_queue import JobQueue
from search.trials.job import FittingMemory, Job, JobEnded, MemoryShortage
from tests.unit.test_job_queue import NODE, PLACE, WORKER_LOST, job, result, run, start

BROKEN = JobEnded("worker_lost", f"{PLACE} cannot be used any more after AcceleratorError at trainer.py:1 (train)")


def test_a_job_on_a_lost_node_is_lost_and_others_continue() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generations = [await queue.join(group, f"node-{group}", PLACE, 0) for group in range(2)]
        submitted = [await start(queue.submit(job(number))) for number in range(2)]
        for group in range(2):
            assert await queue.take(group, generations[group], 1) == job(group)
        await queue.drop_lost_nodes({"node-1"})
        assert await submitted[0] == WORKER_LOST
        assert not submitted[1].done()

    run(test())


def test_a_job_is_lost_with_the_node_of_any_rank() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, "node-0", PLACE, 0)
        followed = await start(queue.follow(0, generation, 1, "node-1"))
        submitted = await start(queue.submit(job()))
        assert await queue.take(0, generation, 2) == job()
        assert await followed == job()
        await queue.drop_lost_nodes({"node-0"})
        assert await submitted == WORKER_LOST

    run(test())


async def lose(queue: JobQueue, group: int, generation: int, job: Job) -> None:
    """Submit a job and let a group lose it."""
    submitted = await start(queue.submit(job))
    assert await queue.take(group, generation, 1) == job
    await queue.end(group, job.id, BROKEN)
    assert await submitted == BROKEN


def test_a_group_that_loses_several_trials_in_a_row_is_drained_and_the_others_continue() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generation = await queue.join(0, NODE, PLACE, 0)
        for number in range(MAX_LOST_TRIALS):
            assert await queue.drain_reason(0) is None
            await lose(queue, 0, generation, job(number))
        assert await queue.take(0, generation, 1) is None
        reason = str(await queue.drain_reason(0))
        assert reason.startswith(f"{PLACE}: worker group 0 lost {MAX_LOST_TRIALS} trials in a row")
        assert BROKEN.reason in reason
        other = await queue.join(1, NODE, "node 10.0.0.2", 0)
        await start(queue.submit(job(9)))
        assert await queue.take(1, other, 1) == job(9)

    run(test())


def test_a_finished_epoch_resets_the_count_of_lost_trials() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        for number in range(3 * MAX_LOST_TRIALS):
            await lose(queue, 0, generation, job(number))
            await start(queue.submit(job(100 + number)))
            assert await queue.take(0, generation, 1) == job(100 + number)
            await queue.report(job(100 + number).id, result(1, finished=True))
            await queue.end(0, job(100 + number).id, JobEnded("finished"))
        assert await queue.drain_reason(0) is None

    run(test())


def test_one_trial_that_ends_its_workers_drains_no_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)
        for attempt in range(3 * MAX_LOST_TRIALS):
            await lose(queue, 0, generation, job(0, attempt))
        assert await queue.drain_reason(0) is None

    run(test())


def test_a_trial_that_a_group_loses_twice_waits_for_another_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generation = await queue.join(0, NODE, PLACE, 0)
        other = await queue.join(1, NODE, PLACE, 0)
        for attempt in range(MAX_LOSSES):
            await lose(queue, 0, generation, job(0, attempt))
        await start(queue.submit(job(0, 7)))
        waiting = await start(queue.take(0, generation, 1))
        assert not waiting.done()
        assert await queue.take(1, other, 1) == job(0, 7)

    run(test())


def test_the_last_trial_returns_to_a_group_that_lost_it_if_no_other_is_up() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2, unfinished=2)
        generation = await queue.join(0, NODE, PLACE, 0)
        for attempt in range(MAX_LOSSES):
            await lose(queue, 0, generation, job(0, attempt))
        await start(queue.submit(job(0, 7)))
        waiting = await start(queue.take(0, generation, 1))
        assert not waiting.done(), "the other group will start"
        await queue.expect(1)
        assert await waiting == job(0, 7)

    run(test())


def test_a_lost_node_does_not_count_as_a_fault_of_the_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        for number in range(3 * MAX_LOST_TRIALS):
            generation = await queue.join(0, NODE, PLACE, 0)
            await start(queue.submit(job(number)))
            await queue.take(0, generation, 1)
            await queue.drop_lost_nodes(alive=())
        assert await queue.drain_reason(0) is None

    run(test())


def test_a_job_whose_worker_the_kernel_killed_for_memory_is_out_of_memory() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 4)
        reduced = replace(job(), micro_batch=4, recomputation=True)
        submitted = await start(queue.submit(reduced))
        await queue.take(0, generation, 1)
        generation = await queue.join(0, NODE, PLACE, 5)
        ended = await submitted
        assert isinstance(ended, JobEnded)
        assert (ended.cause, ended.shortage) == ("out_of_memory", MemoryShortage(4, None, recomputation=True))
        again = await start(queue.submit(job(1)))
        await queue.take(0, generation, 1)
        await queue.join(0, NODE, PLACE, 5)
        assert await again == WORKER_LOST

    run(test())


def test_a_kill_on_another_node_is_no_memory_shortage() -> None:
    async def test() -> None:
        queue = JobQueue(["default"] * 2)
        generation = await queue.join(0, NODE, PLACE, 0)
        await queue.join(1, "node-b", PLACE, 0)
        submitted = await start(queue.submit(job()))
        await queue.take(0, generation, 1)
        await queue.join(0, "node-b", PLACE, 1)
        assert await submitted == WORKER_LOST

    run(test())


def test_a_worker_that_ray_killed_for_memory_is_a_memory_shortage_and_drains_no_group() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        for number in range(3 * MAX_LOST_TRIALS):
            generation = await queue.join(0, NODE, PLACE, 0)
            submitted = await start(queue.submit(job(number)))
            await queue.take(0, generation, 1)
            await queue.lose_for_memory(0, "Ray ended a worker process")
            ended = await submitted
            assert isinstance(ended, JobEnded)
            assert (ended.cause, ended.shortage) == ("out_of_memory", MemoryShortage(None, None))
        assert await queue.drain_reason(0) is None

    run(test())


def test_later_jobs_start_with_the_memory_use_that_fitted_a_similar_job() -> None:
    async def test() -> None:
        queue = JobQueue(["default"])
        generation = await queue.join(0, NODE, PLACE, 0)

        async def train(wanted: Job, *, fits: bool = True) -> Job | None:
            await start(queue.submit(wanted))
            taken = await queue.take(0, generation, 1)
            if fits:
                await queue.report(wanted.id, result(1, finished=True))
            await queue.end(0, wanted.id, JobEnded("finished"))
            return taken

        large = replace(job(0), memory_key="llama/lora/512")
        assert await train(large, fits=False) == large
        reduced = replace(large, id="again", micro_batch=2, recomputation=True, reduced=True)
        assert await train(reduced) == reduced
        similar = replace(job(1), memory_key="llama/lora/512")
        assert await train(similar) == replace(similar, micro_batch=2, recomputation=True)
        smaller = replace(similar, id="smaller", micro_batch=1)
        assert await train(smaller) == replace(smaller, micro_batch=1, recomputation=True)
        other = replace(job(2), memory_key="bert/lora/512")
        assert await train(other) == other

    run(test())


def test_a_resumed_search_starts_with_the_memory_use_that_fitted() -> None:
    async def test() -> None:
        queue = JobQueue(["default"], fitting={"llama/lora/512": FittingMemory(4, recomputation=False)})
        generation = await queue.join(0, NODE, PLACE, 0)
        await start(queue.submit(replace(job(), memory_key="llama/lora/512")))
        taken = await queue.take(0, generation, 1)
        assert taken is not None
        assert taken.micro_batch == 4
        assert await queue.get_fitting_memory() == {"llama/lora/512": FittingMemory(4, recomputation=False)}

    run(test())
