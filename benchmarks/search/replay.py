"""Replay searches on tables and compare samplers by the compute that they need for the same regret.

Each method searches a corpus with 4 asynchronous workers until it has spent the compute of 30, or more, full random
trials. Regret is the highest true score of the corpus minus the true score of the best complete trial. A ratio
is the compute of the reference divided by the compute that the new default needs for the reference's mean regret;
above 1 the new default needs less. Intervals are 95 % bootstrap intervals over corpora and seeds. The share of the
hypervolume that early stopping keeps with two objectives is in :mod:`hypervolume`.

    python benchmarks/search/replay.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hypervolume import KeptHypervolume, compare_with_no_stopping, summarize_kept
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage
from replay_tables import ReplayCorpus, load_recorded_corpora, load_replay_space, load_synthetic_corpora
from simulated_search import regret_at, replay_search

from search.config.domains import Range
from search.config.portfolio import find_default_points
from search.config.search_space import SearchSpace
from search.ledger.ledger import Ledger

WORKERS = 4
TRIALS = 30
LONGEST = 2.0
"""Methods run for this multiple of the compute of 30 random trials, so that slower ones reach the target, too."""
GRID = 240
RESAMPLES = 2_000
WRONG_FACTORS = (10.0, 0.1)
SYNTHETIC_CORPORA = 20
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A sampler with a scheduler.

    Args:
        sampler: Name of the sampler.
        scheduler: Name of the scheduler.
        points: What is evaluated first: nothing, the default portfolio, or winners of the other corpora.
        prior_factor: Factor between a wrong and the shipped prior of each learning rate.
    """

    sampler: str
    scheduler: str
    points: str = "none"
    prior_factor: float = 1.0


METHODS = {
    "random": Method("random", "none"),
    "random + asha": Method("random", "asha"),
    "tpe + asha": Method("tpe", "asha"),
    "auto, no first points": Method("auto", "asha"),
    "auto, cold": Method("auto", "asha", "portfolio"),
    "auto, warm": Method("auto", "asha", "winners"),
    "auto, prior 10 times too high": Method("auto", "asha", "portfolio", WRONG_FACTORS[0]),
    "auto, prior 10 times too low": Method("auto", "asha", "portfolio", WRONG_FACTORS[1]),
}


@cache
def load_corpora(tables: str) -> tuple[ReplayCorpus, ...]:
    """Load the corpora, once per process."""
    recorded = load_recorded_corpora() if tables in ("recorded", "all") else []
    synthetic = load_synthetic_corpora(SYNTHETIC_CORPORA) if tables in ("synthetic", "all") else []
    return (*recorded, *synthetic)


@cache
def load_method_space(method: Method) -> SearchSpace:
    """Load the space with a method's sampler, scheduler and priors."""
    overrides = [f"algorithm.sampler={method.sampler}", f"algorithm.scheduler={method.scheduler}"]
    space = load_replay_space(overrides)
    if method.prior_factor == 1.0:
        return space
    for path, domain in space.dimensions():
        prior = space.find_prior(path)
        if isinstance(domain, Range) and prior is not None:
            wrong = min(domain.high, max(domain.low, float(prior.value) * method.prior_factor))
            part, _, name = path.partition(".")
            branch, _, parameter = name.partition(".")
            overrides.append(f"space.{part}.choose.{branch}.{parameter}.prior={wrong:.6e}")
    return load_replay_space(overrides)


def list_first_points(
    method: Method, corpus: ReplayCorpus, tables: str, space: SearchSpace
) -> tuple[dict[str, Any], ...]:
    """Return the points that a method evaluates first on a corpus; nothing of that corpus is in them."""
    if method.points == "portfolio":
        return tuple(find_default_points(space))
    if method.points == "winners":
        kind = corpus.name.startswith("synthetic-")
        others = [c for c in load_corpora(tables) if c.name != corpus.name and c.name.startswith("synthetic-") == kind]
        return tuple(dict(other.winner) for other in others[:WORKERS])
    return ()


def replay_method(name: str, corpus_index: int, seed: int, tables: str) -> list[float]:
    """Replay one search and return its regret at each point of the compute grid."""
    method, corpus = METHODS[name], load_corpora(tables)[corpus_index]
    space = load_method_space(method)
    points = list_first_points(method, corpus, tables, space)
    algorithm = space.file.algorithm.model_copy(update={"seed": seed, "points_to_evaluate": points})
    seeded = space.with_algorithm(algorithm)
    compute = TRIALS * corpus.trial_seconds
    progress = replay_search(
        seeded,
        lambda config, number: corpus.simulator.make_curve(config, 100_000 * (seed + 1) + number),
        workers=WORKERS,
        compute=LONGEST * compute,
    ).progress
    grid = np.linspace(0, LONGEST, GRID + 1)
    return [regret_at(progress, compute * share, corpus.optimum, 0.0) for share in grid]


def replay_all(seeds: int, tables: str, methods: Sequence[str]) -> dict[str, Array]:
    """Replay all methods.

    Returns:
        Regret of shape [searches, grid] by method; the searches of all methods are in the same order.
    """
    corpora = load_corpora(tables)
    jobs = [(index, seed) for seed in range(seeds) for index in _corpora_of_seed(corpora, seed)]
    found: dict[str, Array] = {}
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        for name in methods:
            started = time.perf_counter()
            tasks = [executor.submit(replay_method, name, index, seed, tables) for index, seed in jobs]
            found[name] = np.array([task.result() for task in tasks])
            print(f"{name}: {len(jobs)} searches in {time.perf_counter() - started:.0f} s", flush=True)
    return found


def compare_hypervolume(corpus_index: int, seed: int, tables: str) -> KeptHypervolume:
    """Replay a search with two objectives with and without early stopping."""
    return compare_with_no_stopping(load_corpora(tables)[corpus_index], seed)


def replay_hypervolume(seeds: int, tables: str) -> dict[str, float]:
    """Return the share of the hypervolume that early stopping keeps, and its share of the compute."""
    corpora = load_corpora(tables)
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        tasks = [
            executor.submit(compare_hypervolume, index, seed, tables)
            for seed in range(seeds)
            for index in _corpora_of_seed(corpora, seed)
        ]
        return summarize_kept([task.result() for task in tasks])


def _corpora_of_seed(corpora: Sequence[ReplayCorpus], seed: int) -> list[int]:
    """Return the corpora that a seed searches: every recorded one, and one synthetic one."""
    synthetic = [index for index, corpus in enumerate(corpora) if corpus.name.startswith("synthetic-")]
    recorded = [index for index in range(len(corpora)) if index not in synthetic]
    return recorded + ([synthetic[seed % len(synthetic)]] if synthetic else [])


def compute_ratio(reference: Array, method: Array, trials: int) -> float:
    """Return the compute of a reference divided by the compute that a method needs for the same mean regret.

    Args:
        reference: Regret of the reference, of shape [searches, grid].
        method: Regret of the method, of the same shape.
        trials: Number of full trials of the reference.
    """
    at = round(trials / TRIALS / LONGEST * GRID)
    target = reference[:, at].mean()
    reached = np.flatnonzero(method.mean(axis=0) <= target)
    return at / max(1, int(reached[0])) if len(reached) else at / GRID


def estimate_ratio(reference: Array, method: Array, trials: int) -> dict[str, float]:
    """Return a ratio with its 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    samples = []
    for _ in range(RESAMPLES):
        rows = random.integers(0, len(reference), len(reference))
        samples.append(compute_ratio(reference[rows], method[rows], trials))
    low, high = np.percentile(samples, [2.5, 97.5])
    value = compute_ratio(reference, method, trials)
    return {"value": round(value, 2), "low": round(float(low), 2), "high": round(float(high), 2)}


def measure_draw(trials: int = 1_000) -> dict[str, float]:
    """Return the milliseconds of a draw of the default sampler in a ledger of many trials."""
    space = load_method_space(METHODS["auto, cold"])
    ledger = Ledger.create(InMemoryStorage(), "draws", space.file.objective, space.file.algorithm, {})
    random = np.random.default_rng(0)
    times = []
    for number in range(trials + 20):
        started = time.perf_counter()
        ledger.ask(space)
        times.append(1000 * (time.perf_counter() - started))
        ledger.report(number, 1, {space.file.selection: float(random.random())})
        ledger.end(number, "pruned")
    last = times[trials:]
    low, high = np.percentile(last, [2.5, 97.5])
    return {"value": round(float(np.median(last)), 1), "low": round(float(low), 1), "high": round(float(high), 1)}


def summarize(regret: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Return the ratios of the new default."""

    def ratio(reference: str, method: str, trials: int) -> dict[str, float]:
        return estimate_ratio(regret[reference], regret[method], trials)

    plain = min(("random + asha", "tpe + asha"), key=lambda name: regret[name][:, round(GRID / LONGEST)].mean())
    wrong = [name for name, method in METHODS.items() if method.prior_factor != 1.0]
    worst = {n: min((ratio("random", name, n) for name in wrong), key=lambda r: r["value"]) for n in (10, 30)}
    return {
        "random_30_cold": ratio("random", "auto, cold", 30),
        "random_30_warm": ratio("random", "auto, warm", 30),
        "random_10_cold": ratio("random", "auto, cold", 10),
        "best_plain_30": ratio(plain, "auto, cold", 30),
        "wrong_prior_10": worst[10],
        "wrong_prior_30": worst[30],
    }


def print_table(regret: Mapping[str, Array]) -> None:
    """Print the mean regret of each method in F1 points."""
    shares = {trials: round(trials / TRIALS / LONGEST * GRID) for trials in (5, 10, 20, 30, 60)}
    print(f"{'regret in F1 points after the compute of':<34}" + "".join(f"{n:>8}" for n in shares) + "  random trials")
    for name, rows in regret.items():
        print(f"{name:<34}" + "".join(f"{100 * rows[:, at].mean():>8.2f}" for at in shares.values()))


def main() -> None:
    """Replay all methods, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="25 seeds instead of 100")
    parser.add_argument("--tables", choices=("recorded", "synthetic", "all"), default="all")
    options = parser.parse_args()
    seeds = 25 if options.quick else 100
    names = sorted(
        {
            corpus.name.split("-")[0] if corpus.name.startswith("synthetic-") else corpus.name
            for corpus in load_corpora(options.tables)
        }
    )
    print(f"tables: {', '.join(names)}; {seeds} seeds", flush=True)
    regret = replay_all(seeds, options.tables, list(METHODS))
    print_table(regret)
    hypervolume = replay_hypervolume(seeds, options.tables)
    print(f"hypervolume kept: {hypervolume['value']:.3f} with {hypervolume['compute']:.2f} of the compute", flush=True)
    print(json.dumps(summarize(regret) | {"hypervolume": hypervolume, "draw_ms_1000": measure_draw()}))


if __name__ == "__main__":
    main()
