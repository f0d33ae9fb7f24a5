"""Settings of configurations: those that all of them share, and a column for each one that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clinie_core.config import TrialConfig
from search.config.description import abbreviate_setting, format_formulation, format_setting
from search.report.text_table import Column

__all__ = ["SettingsTable", "separate_settings"]

UNNAMED = ("backbone", "formulation", "method")
"""Settings whose values need no name."""
SET_BY_OTHER_BLOCKS = {
    "task",
    "backbone",
    "formulation",
    "relation_formulation",
    "finetuning",
    "selection",
    "view",
    "fold",
}
"""Fields of a configuration that have a column of their own, or that a report states elsewhere."""
ABSENT = "-"


@dataclass(frozen=True)
class SettingsTable:
    """Settings of several configurations.

    Args:
        common: Settings that all configurations share and that are not the default, by name.
        names: Names of the settings that vary.
        rows: Values of these settings for each configuration, ``-`` where it has none.
    """

    common: Mapping[str, str]
    names: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def columns(self) -> list[Column]:
        """Columns of a terminal table."""
        return [Column(name, is_setting=True, is_named=name not in UNNAMED) for name in self.names]

    @property
    def description(self) -> str:
        """Line with the common settings; empty if there are none."""
        if not self.common:
            return ""
        return "all trials: " + ", ".join(f"{name} {value}" for name, value in self.common.items())


def separate_settings(configs: Sequence[TrialConfig | None]) -> SettingsTable:
    """Separate the settings that all configurations share from those that vary.

    Args:
        configs: The configurations; None for a trial whose draw was not completed.
    """
    collected = [_collect(config) if config is not None else {} for config in configs]
    known = [values for values, config in zip(collected, configs, strict=True) if config is not None]
    names = list(dict.fromkeys(name for values in known for name in values))
    # The sort is stable: the parameters of components come before the settings of all of them.
    names.sort(key=lambda name: name in TrialConfig.model_fields and name not in UNNAMED)
    distinct = {name: {values.get(name, ABSENT) for values in known} for name in names}
    varying = tuple(name for name in names if len(distinct[name]) > 1)
    defaults = {name: format_setting(field.default) for name, field in TrialConfig.model_fields.items()}
    common = {n: known[0][n] for n in names if n not in varying and known[0][n] != defaults.get(n)}
    rows = [tuple(values.get(name, ABSENT) for name in varying) for values in collected]
    shown = tuple(abbreviate_setting(name) for name in varying)
    return SettingsTable({abbreviate_setting(n): v for n, v in common.items()}, shown, rows)


def _collect(config: TrialConfig) -> dict[str, str]:
    """Return all settings of a configuration by name, with the parameters of its components."""
    relations = config.relation_formulation
    own = config.formulation.parameters
    values: dict[str, object] = {"method": config.finetuning.name, **own}
    for name, value in relations.parameters.items() if relations else ():
        values[f"relation {name}" if name in own else name] = value
    values |= config.finetuning.parameters
    values |= {name: getattr(config, name) for name in TrialConfig.model_fields if name not in SET_BY_OTHER_BLOCKS}
    values.pop("epochs")
    first = {"backbone": config.backbone.name, "formulation": format_formulation(config)}
    return first | {name: format_setting(value) for name, value in values.items()}
