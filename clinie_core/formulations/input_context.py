"""Settings with which the documents of a configuration are encoded; does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.formulations.formulation import InputContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["build_input_context"]


def build_input_context(config: TrialConfig, tokenizer: PreTrainedTokenizerFast, schema: Schema) -> InputContext:
    """Return the settings with which documents are encoded for a configuration."""
    return InputContext(
        tokenizer=tokenizer,
        schema=schema,
        task=config.task,
        window_tokens=config.window_tokens,
        overlap=config.window_overlap,
        hard_prompt=config.hard_prompt,
        seed=config.seed,
    )
