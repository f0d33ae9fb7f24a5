"""Samplers: which configuration comes next. One table; each row makes an Optuna sampler."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from clinie_core.errors import fail
from search.config.space_file import Algorithm

__all__ = ["SAMPLERS", "make_sampler"]


def _tpe(algorithm: Algorithm) -> BaseSampler:
    # group: dimensions that exist only in some branches are modelled together with their branch.
    # constant_liar: running trials count as bad, so that concurrent ones do not repeat them.
    return optuna.samplers.TPESampler(
        n_startup_trials=algorithm.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=algorithm.seed,
    )


def _random(algorithm: Algorithm) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=algorithm.seed)


def _nsga2(algorithm: Algorithm) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=algorithm.startup_trials, seed=algorithm.seed)


SAMPLERS: dict[str, Callable[[Algorithm], BaseSampler]] = {"tpe": _tpe, "random": _random, "nsga2": _nsga2}


def make_sampler(algorithm: Algorithm, number: int = 0) -> BaseSampler:
    """Make the sampler that an algorithm block names.

    Args:
        algorithm: Names the row, with its seed.
        number: The trial that it is to draw. Each trial has a sampler of its own, whose seed follows from the number,
            so that a search that was interrupted draws what an undisturbed one draws.

    Raises:
        InputError: If the table has no such row.
    """
    if algorithm.sampler not in SAMPLERS:
        fail("algorithm.sampler", f"unknown sampler {algorithm.sampler!r}", allowed="allowed: " + ", ".join(SAMPLERS))
    return SAMPLERS[algorithm.sampler](algorithm.model_copy(update={"seed": algorithm.seed + number}))
