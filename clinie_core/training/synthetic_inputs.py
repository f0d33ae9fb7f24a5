"""Largest inputs of a configuration, from which its memory is estimated: those of a corpus, or full windows."""

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

__all__ = ["LargestInput", "assume_largest_inputs", "build_synthetic_data", "find_largest_inputs"]

ANSWER_SHARE = 0.5
"""Assumed length of the longest generated answer, as a share of the window."""
SAMPLED_EPOCHS = 5
"""Number of epochs whose batches are searched for the one with the most positions."""
TOKEN = 1


@dataclass(frozen=True)
class LargestInput:
    """Largest inputs of one component.

    Args:
        training: The longest training example.
        prediction: The longest example without targets.
        answer_tokens: Longest answer in training, in tokens; 0 if the component does not generate.
        predictions: Number of examples that a process predicts; None if it is unknown.
    """

    training: Example
    prediction: Example
    answer_tokens: int = 0
    predictions: int | None = None


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


def find_largest_inputs(config: TrialConfig, data: TrainingData, processes: int = 1) -> dict[str, LargestInput]:
    """Return inputs with the sizes of the longest examples of encoded data, for each component.

    A batch of these inputs is at least as large as each batch of training and of prediction.

    Args:
        config: The configuration with which the data were encoded.
        data: The data.
        processes: Number of processes that divide each batch, and the dev split.
    """
    return {name: _find(name, config, data, processes) for name in data.components}


def _find(component: str, config: TrialConfig, data: TrainingData, processes: int) -> LargestInput:
    rows = data.examples[component]
    tokens = max(len(row.input_ids) for row in rows)
    answer, positions = 0, max(len(row.positions) for row in rows)
    if data.components[component].generates:
        # The logits of a batch are computed at the positions of all its answers, which begin at different positions.
        answer = positions
        positions = max(
            len({position for i in batch[rank::processes] for position in rows[i].positions})
            for epoch in range(1, min(config.epochs, SAMPLED_EPOCHS) + 1)
            for name, batch in data.sample_batches(config, epoch)
            if name == component
            for rank in range(processes)
        )
    targets = max(len(row.targets) for row in rows)
    training = Example(
        (TOKEN,) * tokens,
        tuple(i % tokens for i in range(tokens - positions, tokens)),
        (TOKEN,) * (positions - 1) + (0,) if answer else (0,) * (1 if targets == 1 else positions if targets else 0),
        max((row.spans for row in rows), key=len),
    )
    dev = [example for document in data.dev_encoded[component] for example in document.examples]
    longest = max((len(example.input_ids) for example in dev), default=0)
    widest = max((len(example.positions) for example in dev), default=0)
    prediction = Example((TOKEN,) * longest, tuple(i % longest for i in range(widest)))
    return LargestInput(training, prediction, answer, -(-len(dev) // processes))


def build_synthetic_data(config: TrialConfig, schema: Schema, inputs: Mapping[str, LargestInput]) -> TrainingData:
    """Return training data that consist of the largest inputs, without documents.

    Args:
        config: The configuration.
        schema: Annotation types to extract.
        inputs: The inputs of each component.
    """
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    context = InputContext(tokenizer, schema, config.task, config.window_tokens, config.window_overlap)
    examples = {name: [_limit_answer(largest)] for name, largest in inputs.items()}
    corpora = {name: [""] for name in inputs}
    return TrainingData(schema, build_components(config), context, examples, corpora, (), "", dict.fromkeys(inputs, ()))


def _limit_answer(largest: LargestInput) -> Example:
    """Return a training example whose answer, if it has one, is as long as the longest one."""
    row, answer = largest.training, largest.answer_tokens
    return replace(row, positions=row.positions[-answer:], targets=row.targets[-answer:]) if answer else row
