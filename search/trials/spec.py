"""The specification of a trial and its representation as a Ray Tune configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinie_core.config import TrialConfig
from clinie_core.finetuning import FINETUNING
from search.trials.job import DEFAULT_CLASS

__all__ = ["TrialSpec"]

NUMBER = "number"
CONFIG = "trial_config"
BACKBONE = "backbone"
MEMORY_KEY = "memory_key"
MICRO_BATCH = "micro_batch"
CAN_RECOMPUTE = "can_recompute"
IS_REPEAT = "is_repeat"
CLASSES = "classes"
SEPARATOR = ","


@dataclass(frozen=True)
class TrialSpec:
    """Trial as Tune and the pool see it.

    Args:
        number: Number of the trial in its study, from 0.
        config: Its configuration as JSON. Only the process that trains parses it.
        backbone: Name of its backbone.
        memory_key: Backbone, fine-tuning method and window of the configuration, which determine the memory per
            window.
        micro_batch: Largest number of windows per forward pass.
        can_recompute: Whether activations can be recomputed although the configuration does not say so.
        is_repeat: Whether it repeats another trial with another seed, so that no scheduler may stop it.
        classes: Names of the resource classes to try, the next one after a shortage of memory.
    """

    number: int
    config: str
    backbone: str
    memory_key: str
    micro_batch: int
    can_recompute: bool
    is_repeat: bool = False
    classes: tuple[str, ...] = (DEFAULT_CLASS,)

    @classmethod
    def from_config(
        cls,
        number: int,
        config: TrialConfig,
        classes: tuple[str, ...] = (DEFAULT_CLASS,),
        *,
        is_repeat: bool = False,
    ) -> TrialSpec:
        """Make the specification of a trial.

        Args:
            number: Number of the trial.
            config: Its configuration.
            classes: Names of the resource classes to try.
            is_repeat: Whether it repeats another trial with another seed.
        """
        method = config.finetuning.name
        return cls(
            number,
            config.model_dump_json(),
            config.backbone.name,
            memory_key=f"{config.backbone.name}/{method}/{config.window_tokens}",
            micro_batch=config.micro_batch or config.batch_size,
            can_recompute=FINETUNING.load(method).supports_recomputation and not config.gradient_checkpointing,
            is_repeat=is_repeat,
            classes=classes,
        )

    def to_tune_config(self) -> dict[str, Any]:
        """Return the specification as entries of a Tune configuration."""
        return {
            NUMBER: self.number,
            CONFIG: self.config,
            BACKBONE: self.backbone,
            MEMORY_KEY: self.memory_key,
            MICRO_BATCH: self.micro_batch,
            CAN_RECOMPUTE: self.can_recompute,
            IS_REPEAT: self.is_repeat,
            CLASSES: SEPARATOR.join(self.classes),
        }

    @classmethod
    def from_tune_config(cls, config: Mapping[str, Any]) -> TrialSpec:
        """Read the specification from a Tune configuration, which may hold further entries."""
        return cls(
            int(config[NUMBER]),
            str(config[CONFIG]),
            str(config[BACKBONE]),
            str(config[MEMORY_KEY]),
            int(config[MICRO_BATCH]),
            bool(config[CAN_RECOMPUTE]),
            bool(config[IS_REPEAT]),
            tuple(str(config[CLASSES]).split(SEPARATOR)),
        )
