"""Registries of samplers and schedulers, by the names that an ``algorithm`` block uses.

A name is looked up here without importing Optuna or Ray; only :meth:`Registry.load` imports the function.
"""

from __future__ import annotations

from typing import Any

from clinie_core.registry import Registry

__all__ = ["SAMPLERS", "SCHEDULERS"]

SAMPLERS: Registry[Any] = Registry(
    "sampler",
    {
        "auto": "search.ledger.samplers:make_auto",
        "tpe": "search.ledger.samplers:make_tpe",
        "random": "search.ledger.samplers:make_random",
        "grid": "search.ledger.samplers:make_grid",
        "qmc": "search.ledger.samplers:make_qmc",
        "gp": "search.ledger.samplers:make_gp",
        "cmaes": "search.ledger.samplers:make_cmaes",
        "nsga2": "search.ledger.samplers:make_nsga2",
        "nsga3": "search.ledger.samplers:make_nsga3",
    },
)
"""Functions from an ``Algorithm`` block and the search space to an Optuna sampler."""

SCHEDULERS: Registry[Any] = Registry(
    "scheduler",
    {
        "asha": "search.tune.schedulers:make_asha",
        "median": "search.tune.schedulers:make_median",
        "none": "search.tune.schedulers:make_fifo",
    },
)
"""Functions from ``StoppingSettings`` to a Ray Tune scheduler."""
