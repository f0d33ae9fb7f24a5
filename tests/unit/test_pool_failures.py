"""A pool continues while a group works, reports each drained group once, and fails when none remains."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from clinie_core.errors import Problem
from search.cluster.capacity import Capacity, NodeType
from search.config.resources import Resources
from search.pool.pool import WorkerPool

Outcome = Problem | None | Exception


def make_pool(outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """Return a pool whose groups have ended with these outcomes; None for a group that still runs."""
    monkeypatch.setattr("search.pool.pool.read_capacity", lambda: Capacity((NodeType({"CPU": 8.0}, 1),), is_final=True))
    pool = WorkerPool([Resources(concurrent_trials=len(outcomes))], lambda device: lambda job, report: None, Path())
    for outcome in outcomes:
        future: Future[Problem | None] = Future()
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        elif outcome is not None:
            future.set_result(outcome)
        pool._futures.append(future)
    return pool


DRAINED = Problem("node 10.0.0.1, GPU 3", "worker group 0 lost 3 trials in a row")
OTHER = Problem("node 10.0.0.2, GPU 0", "worker group 1 lost 3 trials in a row")


def test_a_pool_with_a_working_group_continues_and_names_the_drained_group_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool([DRAINED, None], monkeypatch)
    assert pool.failure() is None
    assert pool.take_warnings() == [DRAINED]
    assert pool.take_warnings() == []


def test_a_pool_without_a_group_fails_with_the_reason_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool([DRAINED, OTHER], monkeypatch)
    assert pool.failure() == f"no worker group remains: {DRAINED} | {OTHER}"


def test_a_group_that_cannot_start_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool([None, DRAINED, ValueError("a note says: aspirin")], monkeypatch)
    assert pool.take_warnings() == [DRAINED], "the error of a group is no warning"
    assert pool.failure() == "a worker group cannot run: ValueError"
