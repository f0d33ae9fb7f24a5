"""Importance of the dimensions of a space for the main objective."""

from __future__ import annotations

from collections.abc import Mapping

import optuna

__all__ = ["compute_importances"]

FEWEST_TRIALS = 10


def compute_importances(study: optuna.Study, values: Mapping[int, float | None]) -> dict[str, float]:
    """Return the importance of each dimension, the highest first.

    PED-ANOVA computes it from the complete trials, for the dimensions that all of them have. The result is
    empty if there are fewer than ten complete trials, or all have the same value.

    Source: Watanabe et al. 2023, IJCAI.

    Args:
        study: The study.
        values: Value of the main objective of each complete trial, by number.
    """
    if len(values) < FEWEST_TRIALS or len(set(values.values())) < 2:
        return {}
    return dict(
        optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: float(values[trial.number] or 0.0),
        )
    )
