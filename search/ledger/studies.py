"""The studies of a ledger: their names, and creation and loading of one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage

from clinie_core.errors import fail
from search.config.objectives import Limit, Objective
from search.ledger.storage import open_storage
from search.storage.home import Home

__all__ = ["create_study", "has_study", "list_study_names", "load_study"]

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning, module=r"optuna|search")


def list_study_names(home: Home) -> list[str]:
    """Return the sorted names of the studies in a home folder's ledger."""
    if home.ledger is None and not home.ledger_file.exists():
        return []
    return sorted(optuna.get_all_study_names(open_storage(home)))


def has_study(storage: BaseStorage, name: str) -> bool:
    """Return whether a ledger has a study of this name."""
    return name in optuna.get_all_study_names(storage)


def create_study(
    storage: BaseStorage,
    name: str,
    objectives: Sequence[Objective],
    attributes: Mapping[str, Any],
    points: Iterable[Mapping[str, Any]],
    limits: Iterable[Limit],
) -> optuna.Study:
    """Create a study.

    Args:
        storage: Storage of the new study.
        name: Name of the study.
        objectives: Metrics that the study optimizes, the main one first.
        attributes: Attributes of the study, as JSON values.
        points: Values of dimensions, by path, of the trials that are evaluated first.
        limits: Limits on metrics that the best trial has to satisfy.

    Raises:
        InputError: If a study of that name exists.
    """
    if has_study(storage, name):
        remedy = f"continue it with: clinie resume {name}"
        fail("study", f"study {name!r} exists", allowed="a new name", remedy=remedy)
    directions = [objective.direction for objective in objectives]
    study = optuna.create_study(storage=storage, study_name=name, directions=directions)
    study.set_user_attr("objectives", [o.metric for o in objectives])
    study.set_user_attr("limits", {limit.metric: limit.value for limit in limits})
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    for point in points:
        study.enqueue_trial(dict(point))
    return study


def load_study(storage: BaseStorage, name: str) -> optuna.Study:
    """Load a study that exists.

    Raises:
        InputError: If there is no study of that name.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        allowed = "one of " + (", ".join(sorted(names)) or "none yet")
        fail("study", f"no study {name!r} in this home", allowed=allowed)
    return optuna.load_study(storage=storage, study_name=name)
