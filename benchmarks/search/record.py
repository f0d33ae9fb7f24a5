"""Record training curves: train configurations through clinie_core and store every epoch's metrics.

Each table of :data:`subsets.SUBSETS` has its own draws, which depend only on the table's name and the number of the
draw. A second call continues: it trains only what the tables lack.

    CLINIE_CORPORA=FOLDER python benchmarks/search/record.py --minilm-l3 FOLDER --trials 60
"""

from __future__ import annotations

import argparse
import functools
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from recorded_tables import TABLES, RecordedTrial, append_trials, read_table
from subsets import SUBSETS

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import EpochReport, train
from search.config.domains import RandomChooser, Scalar
from search.config.search_space import SearchSpace
from search.config.seeds import derive_seed
from search.config.space_reading import read_space_file
from search.config.validation import build_space

FIRST_SEED = 13
REPEATED_TRIALS = 6
REPEATED_SEEDS = (14, 15)
KEPT_METRICS = (
    "strict_f1",
    "strict_precision",
    "strict_recall",
    "lenient_f1",
    "train_loss",
    "optimizer_steps",
    "seconds",
    "documents_per_second",
    "peak_memory_mb",
    "trainable_parameters",
)
NICENESS = 10
"""The recording gives way to other work of the machine."""


class RecordingChooser(RandomChooser):
    """Random draws that are remembered; some dimensions have weights.

    Args:
        seed: Seed of the random number generator.
        weights: Relative frequency of values, by dimension and value; 1 for values that are not listed.
    """

    def __init__(self, seed: int, weights: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__(seed)
        self._weights = weights
        self._draws = np.random.default_rng(seed)
        self.parameters: dict[str, JsonValue] = {}

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`search.config.domains.Chooser.draw_choice`."""
        weights = np.array([self._weights.get(name, {}).get(str(choice), 1.0) for choice in choices])
        value = choices[self._draws.choice(len(choices), p=weights / weights.sum())]
        self.parameters[name] = value
        return value

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`search.config.domains.Chooser.draw_float`."""
        value = super().draw_float(name, low, high, log=log)
        self.parameters[name] = value
        return value

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`search.config.domains.Chooser.draw_int`."""
        value = super().draw_int(name, low, high, log=log)
        self.parameters[name] = value
        return value


@functools.cache
def load_space(name: str, minilm_l3: str) -> SearchSpace:
    """Load the space of a table."""
    overrides = [f"backbones.minilm-l3.folder={minilm_l3}"] if name != "decoder" else []
    file, where = read_space_file(str(Path(__file__).parent / f"{name}.yaml"), overrides)
    return build_space(file, where)


def draw_trial(table: str, number: int, minilm_l3: str) -> tuple[TrialConfig, dict[str, JsonValue]]:
    """Draw the configuration of one trial, and return it with the drawn values."""
    subset = SUBSETS[table]
    seed = derive_seed(zlib.crc32(table.encode()), number)
    chooser = RecordingChooser(seed, subset.weights)
    return load_space(subset.space, minilm_l3).suggest(chooser), chooser.parameters


@functools.cache
def load_subset(subset: str) -> Corpus:
    """Load the documents of a table, once per process."""
    return SUBSETS[subset].load()


@functools.cache
def model_cache() -> ModelCache:
    """Return the model cache of this process."""
    return ModelCache()


def train_trial(table: str, number: int, seed: int, minilm_l3: str) -> RecordedTrial:
    """Train one configuration on one core and return its curve."""
    torch.set_num_threads(1)
    config, parameters = draw_trial(table, number, minilm_l3)
    config = config.model_copy(update={"seed": seed})
    epochs: list[dict[str, float]] = []
    used = time.process_time()

    def on_epoch(report: EpochReport) -> bool:
        nonlocal used
        now = time.process_time()
        kept = {name: report.metrics[name] for name in KEPT_METRICS if name in report.metrics}
        epochs.append({**kept, "cpu_seconds": now - used})
        used = now
        return True

    error = None
    try:
        train(config, load_subset(table), cache=model_cache(), distributed=DistributedContext(), on_epoch=on_epoch)
    except Exception as problem:  # a configuration that diverges or does not fit is a result, too
        error = type(problem).__name__
    return RecordedTrial(number, seed, parameters, tuple(epochs), error)


def list_missing(tables: Sequence[str], trials: int, folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield table, number and seed of each trial that is not recorded; the tables grow at the same rate."""
    recorded = {table: {trial.key for trial in read_table(table, folder)} for table in tables}
    planned = [(number, FIRST_SEED) for number in range(trials)]
    repeats = [(number, seed) for seed in REPEATED_SEEDS for number in range(min(REPEATED_TRIALS, trials))]
    for number, seed in planned + repeats:
        for table in tables:
            if (number, seed) not in recorded[table]:
                yield table, number, seed


def main() -> None:
    """Record what is missing, and append each trial to its table as soon as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=sorted(SUBSETS), default=list(SUBSETS))
    parser.add_argument("--trials", type=int, default=60, help="configurations per table (default: 60)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core")
    parser.add_argument("--hours", type=float, default=24.0, help="no trial starts after this time (default: 24)")
    parser.add_argument("--minilm-l3", required=True, help="folder that convert_minilm_l3.py wrote")
    parser.add_argument("--folder", type=Path, default=TABLES, help="folder of the tables")
    options = parser.parse_args()
    os.nice(NICENESS)
    end = time.monotonic() + options.hours * 3600
    missing = list_missing(options.tables, options.trials, options.folder)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as executor:
        running = {}

        def submit_next() -> None:
            following = next(missing, None) if time.monotonic() < end else None
            if following is not None:
                running[executor.submit(train_trial, *following, options.minilm_l3)] = following[0]

        for _ in range(options.processes):
            submit_next()
        while running:
            future = next(as_completed(running))
            table, trial = running.pop(future), future.result()
            append_trials(table, [trial], options.folder)
            best = max((epoch["strict_f1"] for epoch in trial.epochs), default=float("nan"))
            seconds = sum(epoch["cpu_seconds"] for epoch in trial.epochs)
            print(f"{table} {trial.number} seed {trial.seed}: F1 {best:.3f}, {seconds:.0f} s {trial.error or ''}")
            submit_next()


if __name__ == "__main__":
    main()
