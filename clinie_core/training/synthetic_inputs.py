"""Largest inputs of a configuration, from which its memory is estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import Example
from clinie_core.formulations import build_components
from clinie_core.formulations.formulation import Formulation, InputContext
from clinie_core.training.training_data import TrainingData

__all__ = ["LargestInput", "assume_largest_inputs", "build_synthetic_data"]

ANSWER_SHARE = 0.5
"""Assumed length of the longest generated answer, as a share of the window."""
TOKEN = 1


@dataclass(frozen=True)
class LargestInput:
    """Largest inputs of one component.

    Args:
        training: The longest training example.
        prediction: The longest example without targets.
        answer_tokens: Longest answer in training, in tokens; 0 if the component does not generate.
    """

    training: Example
    prediction: Example
    answer_tokens: int = 0


def assume_largest_inputs(config: TrialConfig, schema: Schema) -> dict[str, LargestInput]:
    """Return inputs that fill the window, in which each token is a unit; for each component.

    A generated answer is assumed to have half as many tokens as the window.

    Args:
        config: The configuration.
        schema: Annotation types to extract.
    """
    return {name: _assume(formulation, config, schema) for name, formulation in build_components(config).items()}


def _assume(formulation: Formulation[object], config: TrialConfig, schema: Schema) -> LargestInput:
    from clinie_core.heads import PairHead, SpanHead

    tokens = min(config.window_tokens, getattr(formulation, "pair_tokens", config.window_tokens))
    if formulation.generates:
        answer = max(2, int(config.window_tokens * ANSWER_SHARE))
        positions = tuple(range(tokens - 1, tokens + answer - 1))
        training = Example((TOKEN,) * (tokens + answer - 1), positions, (TOKEN,) * (answer - 1) + (0,))
        return LargestInput(training, Example((TOKEN,) * tokens, ()), answer)
    head = formulation.build_head(8, schema)
    units = tuple(range(1, tokens - 1))
    if isinstance(head, PairHead):
        example = Example((TOKEN,) * tokens, (0, 1, 2), (0,))
    elif isinstance(head, SpanHead):
        example = Example((TOKEN,) * tokens, units, spans=((0, 0, 1),))
    else:
        example = Example((TOKEN,) * tokens, units, (0,) * len(units))
    return LargestInput(example, replace(example, targets=(), spans=()))


def build_synthetic_data(config: TrialConfig, schema: Schema, inputs: Mapping[str, LargestInput]) -> TrainingData:
    """Return training data that consist of the largest inputs, without documents.

    Args:
        config: The configuration.
        schema: Annotation types to extract.
        inputs: The inputs of each component.
    """
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    context = InputContext(tokenizer, schema, config.task, config.window_tokens, config.window_overlap)
    examples = {name: [largest.training] for name, largest in inputs.items()}
    corpora = {name: [""] for name in inputs}
    return TrainingData(schema, build_components(config), context, examples, corpora, (), "", dict.fromkeys(inputs, ()))
