"""Samplers: Optuna samplers that propose the configuration of the next trial."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from clinie_core.errors import fail
from search.config.algorithms import SAMPLERS
from search.config.search_space import SearchSpace
from search.config.seeds import derive_seed
from search.config.space_file import Algorithm
from search.ledger.enumeration import GridSampler, SobolSampler
from search.ledger.proposal_sampler import ProposalSampler
from search.ledger.sampler_view import TrialView

__all__ = [
    "make_auto",
    "make_cmaes",
    "make_gp",
    "make_grid",
    "make_nsga2",
    "make_nsga3",
    "make_qmc",
    "make_random",
    "make_sampler",
    "make_tpe",
]

SMALLEST_POPULATION = 2


def make_auto(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make a sampler of whole configurations: uniform draws, draws near priors, and moves around the best trials."""
    return ProposalSampler(space, algorithm.seed)


def make_tpe(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make a tree-structured Parzen estimator.

    Source: Bergstra et al. 2011, NeurIPS; Watanabe 2023, arXiv 2304.11127.
    """
    sampler = TPESampler(
        n_startup_trials=algorithm.startup_trials,
        multivariate=True,
        group=True,  # models the dimensions of a branch together with that branch
        constant_liar=True,  # counts running trials as bad, so that concurrent trials do not repeat them
        seed=algorithm.seed,
    )
    return TrialView(sampler, complete_only=False, bounded=True)


def make_random(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make a sampler that draws independently at random."""
    return RandomSampler(seed=algorithm.seed)


def make_grid(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make a sampler of the points of a grid."""
    return GridSampler(space)


def make_qmc(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make a sampler of a quasi-random sequence, which covers the space more evenly than random draws."""
    return SobolSampler(space)


def make_gp(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make Bayesian optimization with a Gaussian process, over the dimensions that all trials have.

    Optuna's sampler reads complete trials only; here it also sees stopped ones.

    Source: Snoek et al. 2012, NeurIPS; Ament et al. 2023, NeurIPS (log expected improvement).
    """
    sampler = GPSampler(seed=algorithm.seed, n_startup_trials=algorithm.startup_trials, warn_independent_sampling=False)
    return TrialView(sampler, complete_only=True, bounded=True)


def make_cmaes(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make CMA-ES, an evolution strategy for the numbers that all trials have; choices are drawn at random.

    Source: Hansen 2016, arXiv 1604.00772.

    Raises:
        InputError: If the package ``cmaes`` is not installed.
    """
    if find_spec("cmaes") is None:
        fail("algorithm.sampler", "cmaes needs a package", remedy="pip install cmaes")
    sampler = CmaEsSampler(
        seed=algorithm.seed, n_startup_trials=algorithm.startup_trials, warn_independent_sampling=False
    )
    return TrialView(sampler, complete_only=True, bounded=False)


def make_nsga3(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make NSGA-III, a genetic algorithm for three and more objectives.

    Source: Deb and Jain 2014, IEEE Transactions on Evolutionary Computation 18(4).
    """
    size = max(SMALLEST_POPULATION, algorithm.startup_trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = NSGAIIISampler(population_size=size, seed=algorithm.seed)
    return TrialView(sampler, complete_only=True, bounded=False)


def make_nsga2(algorithm: Algorithm, space: SearchSpace) -> BaseSampler:
    """Make NSGA-II, a genetic algorithm for several objectives.

    Source: Deb et al. 2002, IEEE Transactions on Evolutionary Computation 6(2).
    """
    size = max(SMALLEST_POPULATION, algorithm.startup_trials)
    return TrialView(NSGAIISampler(population_size=size, seed=algorithm.seed), complete_only=True, bounded=False)


def make_sampler(algorithm: Algorithm, space: SearchSpace, number: int) -> BaseSampler:
    """Make the sampler that an algorithm block names.

    Args:
        algorithm: Block with the sampler's name and seed.
        space: The search space.
        number: Number of the trial to draw. Each trial has its own sampler, whose seed is derived from
            ``algorithm.seed`` and this number, so that an interrupted search draws the same configurations as an
            uninterrupted one.

    Raises:
        InputError: If the registry has no sampler of that name.
    """
    make = SAMPLERS.load(algorithm.sampler, "algorithm.sampler")
    seeded = algorithm.model_copy(update={"seed": derive_seed(algorithm.seed, number)})
    sampler: BaseSampler = make(seeded, space)
    return sampler
