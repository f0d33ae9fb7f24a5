"""A configuration in words: for the display, for tables, for the names of MLflow's runs."""

from __future__ import annotations

from typing import Any

from clinie_core.config import TrialConfig

__all__ = ["describe_config", "format_formulation", "make_run_name"]

SHORT = {"learning_rate": "lr", "alpha_over_rank": "alpha/r", "rank": "r"}
TELLING = ("head", "template", "markers", "wording", "rank", "width", "prompt_tokens", "targets", "learning_rate")
"""Parameters that a run's name has room for."""


def _words(parameters: dict[str, Any]) -> list[str]:
    return [
        f"{SHORT.get(k, k)}={v:.2g}" if isinstance(v, float) else f"{SHORT.get(k, k)}={v}"
        for k, v in parameters.items()
    ]


def format_formulation(config: TrialConfig) -> str:
    """The formulation, or both of ``joint`` with a plus between them."""
    return "+".join(part.name for part in (config.formulation, config.relation_formulation) if part)


def _parameters(config: TrialConfig) -> dict[str, Any]:
    second = config.relation_formulation
    return {
        **({"documents": config.train_documents} if config.train_documents else {}),
        **config.formulation.parameters,
        **(second.parameters if second else {}),
        **config.finetuning.parameters,
    }


def describe_config(config: TrialConfig) -> str:
    """Backbone, formulations, method and what is searched of them."""
    return " ".join(
        [config.backbone.name, format_formulation(config), config.finetuning.name, *_words(_parameters(config))]
    )


def make_run_name(number: int, config: TrialConfig) -> str:
    """What a list of runs shows of a trial: its number, backbone, formulation, method and their main parameters."""
    told = {k: v for k, v in _parameters(config).items() if k in ("documents", *TELLING)}
    return f"{number:03d} " + " ".join(
        [config.backbone.name, format_formulation(config), config.finetuning.name, *_words(told)]
    )
