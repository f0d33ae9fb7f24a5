"""Scaling of a study: the ledger up to 10,000 trials, the job queue with 1,000 groups, the whole path of a trial.

python benchmarks/scale.py ledger [TRIALS]     milliseconds per draw, report and end; memory
python benchmarks/scale.py groups [GROUPS]     reports per second of simulated worker groups through the job queue
python benchmarks/scale.py path [TRIALS]       empty trials through ledger, Tune, pool and MLflow
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import ray

from clinie_core.config import BackboneSource
from clinie_core.data.corpora.loading import CorpusSource
from search.config.resources import Resources
from search.config.search_space import SearchSpace
from search.config.space_file import Algorithm, Budget, SpaceFile
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.storage.home import Home
from search.trials.job import JobEnded
from search.trials.listener import TrialListener
from search.trials.result import EpochResult

ROUNDS = 20
MARKS = (100, 1_000, 10_000)
LAST = 50
TINY = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_space(folder: Path, trials: int, sampler: str) -> SearchSpace:
    """Return a space of four dimensions, two of them conditional."""
    file = SpaceFile(
        version=1,
        study="scale",
        corpus=(CorpusSource(path=str(folder)),),
        budget=Budget(trials=trials, epochs=1),
        algorithm=Algorithm(sampler=sampler),
        resources=(Resources(concurrent_trials=1),),
        backbones={
            "tiny": BackboneSource(
                name="tiny", scratch={**TINY, "intermediate_size": 64}, allow_frozen=True
            ).model_dump()
        },
        space={
            "backbone": "tiny",
            "formulation": "token_classification",
            "finetuning": {
                "choose": {
                    "full": {"learning_rate": {"log": [1e-5, 1e-3]}},
                    "lora": {"rank": {"log_int": [4, 16]}, "learning_rate": {"log": [1e-4, 1e-2]}},
                }
            },
        },
    )
    return build_space(file, "scale")


def measure_memory() -> float:
    """Return the resident memory of this process, in MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


def measure_ledger(trials: int) -> None:
    """Add trials to a ledger; at each mark, print the time of its last operations and of a draw by TPE."""
    with tempfile.TemporaryDirectory() as place:
        home = Home(Path(place))
        spaces = {sampler: make_space(Path(place), trials, sampler) for sampler in ("random", "tpe")}
        file = spaces["random"].file
        ledger = Ledger.create(open_storage(home), "scale", file.objective, file.algorithm, {})
        spent: dict[str, list[float]] = {"ask": [], "report": [], "end": []}
        for count in range(1, trials + 1):
            times = [time.perf_counter()]
            number, _ = ledger.ask(spaces["random"])
            times.append(time.perf_counter())
            ledger.report(number, 1, {"strict_f1": (number * 7919 % 1000) / 1000})
            times.append(time.perf_counter())
            ledger.end(number, "complete")
            times.append(time.perf_counter())
            for name, before, after in zip(spent, times, times[1:], strict=False):
                spent[name].append(1000 * (after - before))
            if count in MARKS:
                shown = "  ".join(f"{name} {statistics.median(took[-LAST:]):.1f} ms" for name, took in spent.items())
                tpe = Ledger.open(open_storage(home), "scale", spaces["tpe"].file.algorithm)
                started = time.perf_counter()
                drawn, _ = tpe.ask(spaces["tpe"])
                first = 1000 * (time.perf_counter() - started)
                print(f"{count:>6} trials: {shown}  by TPE {first:.0f} ms  {measure_memory():.0f} MiB", flush=True)
                tpe.end(drawn, "failed", "drawn for timing only")


def measure_groups(groups: int) -> None:
    """Exchange reports between simulated groups and Tune actors: in one event loop, and through the queue's actor."""
    from search.pool.job_queue import JobQueue
    from search.pool.queue_actor import JobQueueActor

    started, used = time.perf_counter(), time.process_time()
    asyncio.run(exchange_reports(DirectCalls(JobQueue(["default"] * groups)), groups, "node"))
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    reports = groups * ROUNDS
    print(
        f"{groups} groups in one event loop: {reports / wall:.0f} reports per second, {1e6 * cpu / reports:.0f} us each"
    )

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    actor = JobQueueActor.remote(["default"] * groups, {}, None, {})
    queue = psutil.Process(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))
    started, used = time.perf_counter(), sum(queue.cpu_times()[:2])
    asyncio.run(exchange_reports(actor, groups, ray.get_runtime_context().get_node_id()))
    wall, cpu = time.perf_counter() - started, sum(queue.cpu_times()[:2]) - used
    shown = f"{reports / wall:.0f} reports per second, {1e6 * cpu / reports:.0f} us of the queue's CPU each"
    print(f"{groups} groups through the actor: {shown}, {queue.memory_info().rss / 2**20:.0f} MiB", flush=True)
    ray.shutdown()


class DirectCalls:
    """A job queue whose methods are called as those of an actor: ``queue.method.remote(...)``."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._queue, name))


async def exchange_reports(queue: Any, groups: int, node: str) -> None:
    """Let each of the groups train one trial, whose Tune actor requests one epoch after the other."""
    from search.trials.job import Job

    async def work(group: int) -> None:
        await queue.await_start.remote(group)
        generation = await queue.join.remote(group, node, "node 1", 0)
        job = await queue.take.remote(group, generation, 1)
        withdrawal = asyncio.ensure_future(wait(queue.await_withdrawal.remote(job.id)))
        for epoch in range(1, ROUNDS + 1):
            await queue.report.remote(job.id, EpochResult(epoch, {"strict_f1": 0.5}, finished=epoch == ROUNDS))
        await queue.end.remote(group, job.id, JobEnded("finished"))
        await withdrawal

    async def wait(call: Awaitable[object]) -> object:
        return await call

    async def follow(number: int) -> None:
        message = await queue.submit.remote(Job(f"job-{number}", number, "{}", "tiny"))
        while not message.finished:
            message = await queue.next_report.remote(f"job-{number}")

    await asyncio.gather(*(work(n) for n in range(groups)), *(follow(n) for n in range(groups)))


def measure_path(trials: int) -> None:
    """Run empty trials through all components and print the time per trial at each mark."""
    from pool_trials import make_empty_program

    from search.cluster.session import ray_session
    from search.pool.pool import WorkerPool
    from search.study.checkpoint_manager import CheckpointManager
    from search.tracking.connection import connect
    from search.tracking.tracker import StudyFacts, Tracker
    from search.tune.run import run_trials
    from search.tune.stop_signal import StopSignal

    with tempfile.TemporaryDirectory() as place:
        home = Home.open(Path(place), create=True)
        space = make_space(Path(place), trials, "random")
        file = space.file
        ledger = Ledger.create(open_storage(home), "scale", file.objective, file.algorithm, {})
        tracker = Tracker(connect(home), home, StudyFacts("scale", {}, []), ledger.set_locations)
        clock = Clock()
        with ray_session(home.root), WorkerPool(file.resources, make_empty_program, home.root / "ray") as pool:
            run_trials(
                pool,
                ledger,
                space,
                [CheckpointManager(ledger, tracker, home, file.objective, file.budget.checkpoints), tracker, clock],
                stop=StopSignal(),
                trials=trials,
                budget=None,
                trials_folder=None,
                tune_folder=home.root / "tune",
            )


class Clock(TrialListener):
    """Listener that prints the time per trial of the last trials and the memory of the driver."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float]] = []

    def on_trial_recorded(self, number: int) -> None:
        """Record the time, and print at each mark."""
        self._ends.append((time.perf_counter(), time.process_time()))
        if len(self._ends) in (*MARKS, 300, 3_000):
            window = self._ends[-LAST:]
            wall, cpu = ((window[-1][i] - window[0][i]) / (len(window) - 1) for i in (0, 1))
            shown = f"{wall:.3f} s per trial, {cpu:.3f} s of the driver's CPU, {measure_memory():.0f} MiB"
            print(f"{len(self._ends):>6} trials: {shown}", flush=True)


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else "ledger"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else {"ledger": 10_000, "groups": 1_000, "path": 1_000}[part]
    measures: dict[str, Callable[[int], None]] = {
        "ledger": measure_ledger,
        "groups": measure_groups,
        "path": measure_path,
    }
    measures[part](size)
