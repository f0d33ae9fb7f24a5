"""Short descriptions of configurations, for the progress display, tables and names of MLflow runs."""

from __future__ import annotations

from typing import Any

from clinie_core.config import TrialConfig

__all__ = [
    "abbreviate_setting",
    "describe_config",
    "describe_for_display",
    "format_formulation",
    "format_setting",
    "make_run_name",
]

ABBREVIATIONS = {"learning_rate": "lr", "alpha_over_rank": "alpha/r", "rank": "r"}
MAIN_PARAMETERS = (
    *("head", "template", "markers", "wording", "rank", "width", "prompt_tokens", "targets"),
    *("learning_rate", "documents"),
)
"""Parameters that are part of a run's name."""


def format_formulation(config: TrialConfig) -> str:
    """Return the name of the formulation, with the relation formulation after a plus sign if there is one."""
    return "+".join(part.name for part in (config.formulation, config.relation_formulation) if part)


def describe_config(config: TrialConfig) -> str:
    """Describe a configuration by backbone, formulation, fine-tuning method and all their parameters."""
    return _join(config, _collect_parameters(config))


def describe_for_display(config: TrialConfig) -> str:
    """Describe a configuration like :func:`describe_config`, with what usually varies first, for a line that is cut."""
    parameters = _format_parameters(_collect_parameters(config))
    return " ".join([config.finetuning.name, *parameters, config.backbone.name, format_formulation(config)])


def make_run_name(number: int, config: TrialConfig) -> str:
    """Make the name of a trial's MLflow run.

    MLflow's tables cut a name off after about twenty characters, so it begins with what usually varies.

    Args:
        number: Number of the trial.
        config: Its configuration; the name contains its main parameters.
    """
    parameters = {k: v for k, v in _collect_parameters(config).items() if k in MAIN_PARAMETERS}
    parts = [f"{number:03d}", config.finetuning.name, config.backbone.name, format_formulation(config)]
    return " ".join([*parts, *_format_parameters(parameters)])


def abbreviate_setting(name: str) -> str:
    """Return the short name of a setting, such as ``lr``; the name itself if it has none."""
    return ABBREVIATIONS.get(name, name)


def format_setting(value: object) -> str:
    """Format the value of a setting; numbers have two significant digits."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _join(config: TrialConfig, parameters: dict[str, Any]) -> str:
    names = [config.backbone.name, format_formulation(config), config.finetuning.name]
    return " ".join([*names, *_format_parameters(parameters)])


def _format_parameters(parameters: dict[str, Any]) -> list[str]:
    return [f"{abbreviate_setting(name)}={format_setting(value)}" for name, value in parameters.items()]


def _collect_parameters(config: TrialConfig) -> dict[str, Any]:
    relations = config.relation_formulation
    return {
        **config.formulation.parameters,
        **(relations.parameters if relations else {}),
        **config.finetuning.parameters,
        **({"documents": config.train_documents} if config.train_documents else {}),
    }
