"""The specification of a trial and its representation as a Ray Tune configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinie_core.config import TrialConfig

__all__ = ["TrialSpec"]

NUMBER = "number"
CONFIG = "trial_config"
BACKBONE = "backbone"


@dataclass(frozen=True)
class TrialSpec:
    """Trial as Tune and the pool see it.

    Args:
        number: Number of the trial in its study, from 0.
        config: Its configuration as JSON. Only the process that trains parses it.
        backbone: Name of its backbone.
    """

    number: int
    config: str
    backbone: str

    @classmethod
    def from_config(cls, number: int, config: TrialConfig) -> TrialSpec:
        """Make the specification of a trial from its number and its configuration."""
        return cls(number, config.model_dump_json(), config.backbone.name)

    def to_tune_config(self) -> dict[str, Any]:
        """Return the specification as entries of a Tune configuration."""
        return {NUMBER: self.number, CONFIG: self.config, BACKBONE: self.backbone}

    @classmethod
    def from_tune_config(cls, config: Mapping[str, Any]) -> TrialSpec:
        """Read the specification from a Tune configuration, which may hold further entries."""
        return cls(int(config[NUMBER]), str(config[CONFIG]), str(config[BACKBONE]))
