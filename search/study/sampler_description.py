"""Description of what the sampler ``auto`` does in a space, for ``clinie plan``."""

from __future__ import annotations

from search.config.domains import Domain
from search.config.portfolio import find_default_points
from search.config.search_space import SearchSpace
from search.ledger.proposals import LARGEST_MOVE_SHARE, UNIFORM_SHARE

__all__ = ["describe_dimension", "describe_sampler"]


def describe_dimension(space: SearchSpace, path: str, domain: Domain) -> str:
    """Return the domain of a dimension, with the prior that the sampler ``auto`` uses."""
    prior = space.find_prior(path) if space.file.algorithm.sampler == "auto" else None
    if prior is None:
        return str(domain)
    value = f"{prior.value:.2g}" if isinstance(prior.value, float) else str(prior.value)
    return f"{domain} (prior {value})"


def describe_sampler(space: SearchSpace) -> str:
    """Return one sentence on the order in which configurations are tried; empty for Optuna's samplers."""
    algorithm = space.file.algorithm
    if algorithm.sampler != "auto":
        return ""
    given = len(algorithm.points_to_evaluate)
    steps = [f"the {given} points to evaluate first"] if given else []
    if algorithm.warm_start:
        defaults = ["/".join(map(str, point.values())) for point in find_default_points(space)]
        steps.append(
            "winners of earlier studies on other corpora" + (f", else {', '.join(defaults)}" if defaults else "")
        )
    shares = f"{UNIFORM_SHARE:.0%} uniform draws, up to {LARGEST_MOVE_SHARE:.0%} moves around the best trials"
    return "; ".join([*steps, f"then {shares}, and draws near the priors"])
