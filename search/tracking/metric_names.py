"""Names of metrics in MLflow, whose pages group metrics by the part before a slash.

Spaces, ledger and reports use flat names, because Ray Tune turns a name with a slash into nested results.

| group | metrics |
|---|---|
| `dev/` | scores on the dev split, one value per epoch |
| `best/` | scores of the best epoch so far, so that running trials can be sorted, too |
| `train/` | loss, duration, memory and size of the model, one value per epoch |
| `types/TYPE/` | scores of a type in the best epoch |
| `system/` | load of the machine |
| `usage/` | resources that a trial used |
| `test/` | scores on the test split, in the study's run |
| `trials/` | number of trials in each state, in the study's run |
| `usage/` | GPU-hours and cost of a trial, and of all trials in the study's run |
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from search.config.objectives import SYSTEM, improves_with_training

__all__ = [
    "OLD_TRAIN_LOSS",
    "TRAIN_LOSS",
    "name_best",
    "name_metric",
    "name_objective",
    "name_transfer",
    "name_type_metric",
]

TRAIN_LOSS = "train/loss"
OLD_TRAIN_LOSS = "train_loss"
"""Name of the training loss in runs of earlier versions."""
TRAINING = ("seconds", "peak_memory_mb", "trainable_parameters", "tokens_per_second", "optimizer_steps")
UNSUPPORTED = re.compile(r"[^\w. :-]")
"""Characters that MLflow does not accept in a part of a metric's name."""


def name_metric(metric: str) -> str:
    """Return the name of an epoch's metric in MLflow, such as ``dev/strict_f1``.

    Args:
        metric: Name in the ledger. The score of one of several corpora is named ``CORPUS.strict_f1``.
    """
    if metric.startswith(SYSTEM):
        return f"system/{metric.removeprefix(SYSTEM)}"
    if metric == "train_loss":
        return TRAIN_LOSS
    if metric in TRAINING:
        return f"train/{metric}"
    corpus, _, score = metric.rpartition(".")
    return f"dev/{_clean(corpus)}/{score}" if corpus else f"dev/{metric}"


def name_best(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a trial's best epoch that training improves, such as ``best/strict_f1``."""
    return {f"best/{_clean(k)}": v for k, v in metrics.items() if improves_with_training(k)}


def name_objective(metric: str) -> str:
    """Return the name of the value of an objective, which is that of the best epoch if epochs differ."""
    return f"best/{metric}" if improves_with_training(metric) else name_metric(metric)


def name_type_metric(type_: str, rate: str) -> str:
    """Return the name of a rate of one concept or relation type, such as ``types/DRUG/f1``."""
    return f"types/{_clean(type_)}/{rate}"


def name_transfer(holdout: str, shots: int, metric: str) -> str:
    """Return the name of a result of a transfer protocol, such as ``north/2_shot/strict_f1``."""
    return f"{_clean(holdout)}/{shots}_shot/{metric}"


def _clean(part: str) -> str:
    """Replace characters that a part of a metric's name must not have; MLflow reads names as relative paths."""
    return UNSUPPORTED.sub("_", part).strip(".") or "_"
