"""Replay of a search in simulated time, through the classes of a real search.

Searcher, ledger, sampler, scheduler and recorder are those of ``clinie search``; only Ray Tune's event loop and the
worker pool are replaced. A trial's metrics come from a table instead of a training.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.storages import InMemoryStorage
from ray.tune.schedulers import TrialScheduler

from clinie_core.config import TrialConfig
from search.config.search_space import SearchSpace
from search.config.stopping import StoppingSettings
from search.ledger.ledger import Ledger
from search.trials.result import EpochResult
from search.trials.spec import TrialSpec
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.schedulers import make_scheduler
from search.tune.searcher import LedgerSearcher


@dataclass(frozen=True)
class Curve:
    """Simulated training of one configuration.

    Args:
        scores: Dev score after each epoch, as a search would observe it.
        true_score: Expected score of the best epoch, without noise.
        seconds: Seconds of one epoch.
    """

    scores: tuple[float, ...]
    true_score: float
    seconds: float


MakeCurve = Callable[[TrialConfig, int], Curve]
"""Function from a configuration and the number of its trial to its curve."""


@dataclass(frozen=True)
class Progress:
    """State of a search after a trial has become the best one.

    Args:
        compute: Seconds that all workers have spent so far.
        true_score: True score of the trial that the search would return now.
    """

    compute: float
    true_score: float


@dataclass(frozen=True)
class CompleteTrial:
    """A trial that no scheduler has stopped.

    Args:
        true_score: Its true score.
        seconds: Seconds of one epoch.
    """

    true_score: float
    seconds: float


@dataclass(frozen=True)
class ReplayedSearch:
    """Results of a replayed search.

    Args:
        progress: The state after each trial that became the best one.
        complete: The complete trials.
        compute: Seconds that all workers have spent.
        trials: Number of trials that were started.
    """

    progress: list[Progress]
    complete: list[CompleteTrial]
    compute: float
    trials: int


@dataclass
class _ReplayTrial:
    """Stand-in for the Tune trial that searcher, scheduler and recorder receive."""

    trial_id: str
    config: dict[str, Any]
    curve: Curve
    epoch: int = 0
    last_result: dict[str, Any] | None = None
    status: str = "RUNNING"
    metric_analysis: dict[str, Any] = field(default_factory=dict)
    metric_n_steps: dict[str, Any] = field(default_factory=dict)


def replay_search(
    space: SearchSpace,
    make_curve: MakeCurve,
    *,
    workers: int,
    compute: float = math.inf,
    trials: int = 10**9,
) -> ReplayedSearch:
    """Replay a search until its workers have spent an amount of compute, or all trials have ended.

    Args:
        space: The search space, whose file names sampler, scheduler, seed and points to evaluate first.
        make_curve: Simulates a training.
        workers: Number of trials that run at once.
        compute: Seconds that all workers may spend together.
        trials: Number of trials.
    """
    file = space.file
    ledger = Ledger.create(InMemoryStorage(), file.study, file.objective, file.algorithm, {})
    running = RunningTrials()
    searcher = LedgerSearcher(ledger, space, trials, running)
    scheduler = make_scheduler(StoppingSettings.from_space_file(file))
    recorder = StudyRecorder(ledger, running, [], lambda trial: "replayed")
    progress: list[Progress] = []
    complete: list[CompleteTrial] = []
    spent, started, best = 0.0, 0, float("-inf")
    events: list[tuple[float, int, _ReplayTrial]] = []

    def start(now: float) -> None:
        nonlocal started
        config = searcher.suggest(f"replay-{started}")
        if not isinstance(config, dict):
            return  # all trials have started
        number = TrialSpec.from_tune_config(config).number
        trial = _ReplayTrial(f"replay-{started}", config, make_curve(running.config(number), number))
        started += 1
        scheduler.on_trial_add(None, trial)
        recorder.on_trial_start(0, [], trial)
        heapq.heappush(events, (now + trial.curve.seconds, started, trial))

    for _ in range(workers):
        start(0.0)
    while events and spent < compute:
        now, order, trial = heapq.heappop(events)
        spent += trial.curve.seconds
        trial.epoch += 1
        score = trial.curve.scores[trial.epoch - 1]
        finished = trial.epoch == len(trial.curve.scores)
        metrics = {file.objective[0].metric: score, file.selection: score, "seconds": trial.curve.seconds}
        trial.last_result = EpochResult(trial.epoch, metrics, finished=finished).to_tune_result()
        recorder.on_trial_result(0, [], trial, trial.last_result)
        if finished:  # only a complete trial can become the best one
            complete.append(CompleteTrial(trial.curve.true_score, trial.curve.seconds))
            if max(trial.curve.scores) > best:
                best = max(trial.curve.scores)
                progress.append(Progress(spent, trial.curve.true_score))
            scheduler.on_trial_complete(None, trial, trial.last_result)
        stops = finished or scheduler.on_trial_result(None, trial, trial.last_result) == TrialScheduler.STOP
        if stops:
            recorder.on_trial_complete(0, [], trial)
            start(now)
        else:
            heapq.heappush(events, (now + trial.curve.seconds, order, trial))
    return ReplayedSearch(progress, complete, spent, started)


def regret_at(progress: Sequence[Progress], compute: float, optimum: float, initial: float) -> float:
    """Return the regret of a search at an amount of compute: the optimum minus the true score of its best trial.

    Args:
        progress: States of the search.
        compute: Seconds of compute.
        optimum: The best possible true score.
        initial: Score before any trial has a result.
    """
    score = initial
    for state in progress:
        if state.compute > compute:
            break
        score = state.true_score
    return optimum - score
