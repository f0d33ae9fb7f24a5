"""The worker pool: processes are reused, two train one trial together, a killed worker fails only its job."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import ray.cloudpickle

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from search.config.resources import Resources
from search.pool.pool import WorkerPool
from search.pool.program import TrainingProgram, count_workers_of_node
from search.pool.worker import MakeProgram, OnReport, Program
from search.trials.job import Job, JobEnded
from search.trials.result import EpochResult

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("local_ray")
MakeConfig = Callable[..., TrialConfig]


def make_pid_program(device: object) -> Program:
    def run(job: Job, on_report: OnReport) -> None:
        for epoch in range(1, 1 + int(json.loads(job.config))):
            if not on_report(EpochResult(epoch, {"pid": os.getpid()})):
                return

    return run


def new_job(config: str, folder: Path | None = None) -> Job:
    return Job(uuid.uuid4().hex, 0, config, "tiny", folder)


def run_job(pool: WorkerPool, job: Job) -> tuple[list[EpochResult], str | None]:
    """Run a job; return all its results and the reason of its failure."""
    results: list[EpochResult] = []
    message = ray.get(pool.queue.submit.remote(job))
    while isinstance(message, EpochResult):
        results.append(message)
        if message.finished:
            return results, None
        message = ray.get(pool.queue.next_report.remote(job.id))
    return results, message.reason or None


def test_one_process_runs_all_jobs_and_a_cancelled_job_trains_no_further_epoch(tmp_path: Path) -> None:
    with WorkerPool([Resources(concurrent_trials=1)], make_pid_program, tmp_path) as pool:
        first, _ = run_job(pool, new_job("2"))
        assert [r.epoch for r in first] == [1, 2]
        stopped = new_job("5")
        assert isinstance(ray.get(pool.queue.submit.remote(stopped)), EpochResult)
        ray.get(pool.queue.cancel.remote(stopped.id))
        second, reason = run_job(pool, new_job("1"))
        assert reason is None
        assert {r.metrics["pid"] for r in first + second} == {first[0].metrics["pid"]}


def test_a_killed_worker_fails_only_its_job_and_the_group_is_restarted(tmp_path: Path) -> None:
    with WorkerPool([Resources(concurrent_trials=1)], make_pid_program, tmp_path) as pool:
        job = new_job("5")
        message = ray.get(pool.queue.submit.remote(job))
        os.kill(message.metrics["pid"], signal.SIGKILL)
        assert ray.get(pool.queue.next_report.remote(job.id)) == JobEnded("worker_lost", "a worker process died")
        again, reason = run_job(pool, new_job("1"))
        assert reason is None
        assert again[0].metrics["pid"] != message.metrics["pid"]
        assert pool.failure() is None


def test_the_pool_grows_when_trials_are_added_to_a_running_search(
    tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    with WorkerPool([Resources(concurrent_trials=2)], make_pid_program, tmp_path, trials=1) as pool:
        first = new_job("5")
        held = ray.get(pool.queue.submit.remote(first))  # its worker waits until the next epoch is requested
        assert sum(ray.get(pool.queue.describe.remote()).up.values()) == 1

        def may_start_second_trial() -> bool:
            pool.refresh(unfinished=2)
            return pool.may_start_trial(running=1)

        wait_until(may_start_second_trial)
        second, reason = run_job(pool, replace(new_job("1"), number=1))
        assert reason is None
        assert second[0].metrics["pid"] != held.metrics["pid"]
        ray.get(pool.queue.cancel.remote(first.id))  # so that its group ends by itself and returns its resources


def make_counting_program(device: object) -> Program:
    def run(job: Job, on_report: OnReport) -> None:
        on_report(EpochResult(1, {"workers": count_workers_of_node()}, finished=True))

    return run


def test_the_workers_of_a_node_divide_its_memory(tmp_path: Path) -> None:
    with WorkerPool([Resources(concurrent_trials=1, cpus_per_worker=1)], make_counting_program, tmp_path) as pool:
        reports, _ = run_job(pool, new_job("1"))
        assert reports[0].metrics["workers"] == 2, "the fixture's node has two CPUs"


def make_missing_program(device: object) -> Program:
    raise ModuleNotFoundError("No module named 'lost'")


@pytest.mark.parametrize(
    ("make_program", "digest", "message"),
    [
        (make_pid_program, "another", "other sources of clinie than the search's own; install the same on every node"),
        pytest.param(make_missing_program, None, "ModuleNotFoundError: No module named 'lost'", marks=pytest.mark.slow),
    ],
)
def test_a_group_that_cannot_start_reports_the_reason(
    make_program: MakeProgram,
    digest: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    if digest:
        monkeypatch.setattr("search.pool.pool.compute_source_digest", lambda: digest)
    with WorkerPool([Resources(concurrent_trials=1)], make_program, tmp_path) as pool:
        wait_until(lambda: pool.failure() is not None)
        assert message in str(pool.failure())


@pytest.mark.slow
def test_a_worker_killed_while_idle_fails_no_later_job(tmp_path: Path) -> None:
    with WorkerPool([Resources(concurrent_trials=1)], make_pid_program, tmp_path) as pool:
        before, _ = run_job(pool, new_job("1"))
        os.kill(int(before[0].metrics["pid"]), signal.SIGKILL)
        # This job may still go to the open call of the dead worker; the next one may not.
        run_job(pool, new_job("1"))
        after, reason = run_job(pool, new_job("1"))
        assert reason is None
        assert after[0].metrics["pid"] != before[0].metrics["pid"]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_reproduce_the_loss_of_one_process(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path, workers: int
) -> None:
    from clinie_core.training.train import EpochReport, train

    # Without dropout, since each rank would draw its own.
    no_dropout = ComponentChoice(name="token_classification", parameters={"dropout": 0.0})
    config = make_config(epochs=2, batch_size=4, formulation=no_dropout)
    expected: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> bool:
        expected.append(report)
        return True

    train(config, corpus, on_epoch=on_epoch)
    resources = Resources(workers_per_trial=workers, cpus_per_worker=1, concurrent_trials=1)
    with WorkerPool([resources], TrainingProgram.share(corpus), tmp_path / "ray") as pool:
        for folder in (tmp_path / "a", tmp_path / "b"):  # the second job uses the loaded models
            reports, reason = run_job(pool, new_job(config.model_dump_json(), folder=folder))
            assert reason is None
            assert [r.epoch for r in reports] == [1, 2]
            for report, reference in zip(reports, expected, strict=True):
                assert report.metrics["train_loss"] == pytest.approx(reference.metrics["train_loss"], rel=1e-3)
            assert (folder / "best" / "model.safetensors").is_file()
    assert reports[-1].finished


@pytest.mark.slow
def test_an_error_in_a_group_of_two_fails_the_job_and_the_group_is_restarted(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    resources = Resources(workers_per_trial=2, concurrent_trials=1)
    with WorkerPool([resources], TrainingProgram.share(corpus), tmp_path / "ray") as pool:
        broken = json.dumps({"epochs": "many"})
        reports, reason = run_job(pool, new_job(broken))
        assert reports == []
        assert reason is not None
        assert reason.startswith("ValidationError at ")
        _, reason = run_job(pool, new_job(make_config(epochs=1).model_dump_json()))
        assert reason is None
