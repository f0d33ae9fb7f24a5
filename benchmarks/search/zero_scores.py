"""Measure how long trials with a score of 0 need before they may be stopped.

Prints how many optimizer steps the recorded trials made before their score was above 0, and replays ASHA on each table
in random orders, with different numbers of steps before a score of 0 counts. Regret is the best score of the table
minus that of the best complete trial, in F1 points.

    CLINIE_CORPORA=FOLDER python benchmarks/search/zero_scores.py
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from recorded_tables import RecordedTrial, read_table
from replay_tables import GivenChooser, load_replay_space
from subsets import SUBSETS

from clinie_core.data.corpora.views import apply_view
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.training_data import TrainingData
from search.config import stopping
from search.config.objectives import Objective
from search.tune.rungs import Rungs

EPOCHS, FACTOR, WORKERS, SEEDS = 6, 3, 4, 50
FIRST_SEED = 13
GOOD = 0.5
"""Share of the best score of its table that a good trial reaches."""
STEPS = (0, 25, 50, 75)
LOW_RANK = ("lora", "rslora", "dora", "pissa", "adalora", "loha")


@dataclass(frozen=True)
class CountedTrial:
    """A recorded trial with its number of optimizer steps per epoch."""

    trial: RecordedTrial
    method: str
    steps: int

    @property
    def scores(self) -> list[float]:
        """Score of each epoch."""
        return [epoch["strict_f1"] for epoch in self.trial.epochs]

    @property
    def seconds(self) -> float:
        """Mean seconds of an epoch."""
        return float(np.mean([epoch["cpu_seconds"] for epoch in self.trial.epochs]))


def count_steps(table: str) -> list[CountedTrial]:
    """Encode the documents of a table for each recorded configuration, and count its batches."""
    space, corpus, cache = load_replay_space(name=SUBSETS[table].space), SUBSETS[table].load(), ModelCache()
    counted = []
    for trial in read_table(table):
        if len(trial.epochs) == EPOCHS and trial.seed == FIRST_SEED:
            config = space.suggest(GivenChooser(trial.parameters))
            data = TrainingData.encode(config, apply_view(corpus, config.view), cache)
            counted.append(CountedTrial(trial, config.finetuning.name, len(data.sample_batches(config, 1))))
    return counted


def replay_asha(trials: Sequence[CountedTrial], grace: int, seed: int) -> tuple[float, float]:
    """Return the score of the best complete trial of a search, and the seconds that it takes."""
    order = iter(np.random.default_rng(seed).permutation(len(trials)).tolist())
    rungs = Rungs(grace, FACTOR, EPOCHS, [Objective(maximize="strict_f1")])
    running: list[tuple[float, int, int]] = []
    best = spent = 0.0

    def start(now: float) -> None:
        number = next(order, None)
        if number is not None:
            heapq.heappush(running, (now + trials[number].seconds, number, 1))

    for _ in range(WORKERS):
        start(0.0)
    while running:
        now, number, epoch = heapq.heappop(running)
        trial = trials[number]
        spent += trial.seconds
        metrics = {"strict_f1": trial.scores[epoch - 1], "optimizer_steps": float(epoch * trial.steps)}
        stops = rungs.report(str(number), epoch, metrics)
        if epoch == EPOCHS:
            best = max(best, *trial.scores)
        if stops or epoch == EPOCHS:
            start(now)
        else:
            heapq.heappush(running, (now + trial.seconds, number, epoch + 1))
    return best, spent


def print_steps(tables: Mapping[str, Sequence[CountedTrial]]) -> None:
    """Print quantiles of the steps after which good trials still had a score of 0."""
    for name, methods in (("low-rank adapters", LOW_RANK), ("full", ("full",))):
        good = [
            trial
            for trials in tables.values()
            for trial in trials
            if trial.method in methods and max(trial.scores) >= GOOD * max(max(other.scores) for other in trials)
        ]
        zeros = [next(index for index, score in enumerate(trial.scores) if score > 0) for trial in good]
        last_zero = [count * trial.steps for count, trial in zip(zeros, good, strict=True)]
        first_above = [(count + 1) * trial.steps for count, trial in zip(zeros, good, strict=True)]
        for label, steps in (("last epoch at 0", last_zero), ("first epoch above 0", first_above)):
            quantiles = np.quantile(steps, [0.5, 0.75, 0.9, 1.0], method="higher")
            print(f"{name} ({len(steps)} trials), steps at the {label}: {quantiles.astype(int).tolist()}")


def main() -> None:
    """Print the steps, and the regret and compute of the replays."""
    tables = {name: trials for name in SUBSETS if (trials := count_steps(name))}
    print("quantiles 0.5, 0.75, 0.9, 1")
    print_steps(tables)
    print(f"{'steps':>5} {'grace epochs':>12} {'regret':>7} {'compute':>8}")
    for steps in STEPS:
        for grace in (1, 3):
            with patch.object(stopping, "FEWEST_STEPS", steps):
                found = {name: [replay_asha(trials, grace, s) for s in range(SEEDS)] for name, trials in tables.items()}
            regret = [max(max(t.scores) for t in tables[n]) - np.mean([b for b, _ in r]) for n, r in found.items()]
            whole = {name: EPOCHS * sum(trial.seconds for trial in trials) for name, trials in tables.items()}
            compute = [np.mean([spent for _, spent in rows]) / whole[name] for name, rows in found.items()]
            print(f"{steps:>5} {grace:>12} {100 * np.mean(regret):>7.2f} {np.mean(compute):>8.2f}")


if __name__ == "__main__":
    main()
