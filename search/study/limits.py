"""Concepts of a corpus that the formulations of a space cannot express, counted before the first trial."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError, Problem
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.representable import LossReason, RepresentableCounts
from search.config.search_space import SearchSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "FormulationLimits",
    "describe_limits",
    "disable_tokenizer_threads",
    "find_unexpected_limits",
    "measure_limits",
]

EXPECTED_SHARE = 0.98
"""Share of representable concepts below which a search warns."""
SAMPLED_CHARACTERS = 300_000
"""Largest number of characters of a split that are counted."""
LISTED_TYPES = 5
"""Largest number of types that a message lists."""
REMEDIES: dict[LossReason, str] = {
    "unit boundary": "use unit: word, or check the offsets of the annotations",
    "overlap": "use span_pointer or span_question with overlaps: true",
    "discontinuous": "expect the whole extent of discontinuous concepts to be predicted",
    "window": "increase window_tokens",
    "ambiguous occurrence": "use template tags, which repeats the text",
    "answer length": "reduce window_tokens, so that answers are shorter",
    "answer text": "use another template or backbone",
    "unknown type": "add training documents with the type",
}
ANSWER_REMEDIES: dict[LossReason, str] = {
    "unit boundary": "check the offsets of the annotations",
    "overlap": "use template lines or json",
}
"""Remedies that differ for generated answers."""


@dataclass(frozen=True)
class FormulationLimits:
    """Counts of the concepts that a formulation can and cannot express.

    Args:
        formulation: The formulation, with the parameters that change the counts and are not the default.
        backbones: Names of the backbones with these counts.
        splits: Counts of each split.
        sampled: Number of documents of each split that were counted.
    """

    formulation: ComponentChoice
    backbones: tuple[str, ...]
    splits: dict[str, RepresentableCounts]
    sampled: dict[str, int]

    @property
    def title(self) -> str:
        """Name and parameters of the formulation."""
        parameters = ", ".join(f"{key}: {json.dumps(value)}" for key, value in self.formulation.parameters.items())
        return f"{self.formulation.name} ({parameters})" if parameters else self.formulation.name

    def __str__(self) -> str:
        shares = ", ".join(
            f"{100 * counts.share:.1f} % of {split} ({self.sampled[split]:,} documents)"
            for split, counts in self.splits.items()
        )
        return f"{shares}, by {self.title} with {', '.join(self.backbones)}"

    def describe_low_types(self, split: str) -> str:
        """Return the types of a split with the lowest shares below :data:`EXPECTED_SHARE`, the lowest first."""
        low = sorted((share, type_) for type_, share in self.splits[split].by_type().items() if share < EXPECTED_SHARE)
        return ", ".join(f"{type_} {100 * share:.1f} %" for share, type_ in low[:LISTED_TYPES])

    def as_json(self) -> dict[str, Any]:
        """Return the limits as a JSON value."""
        return {
            "formulation": self.formulation.name,
            "parameters": dict(self.formulation.parameters),
            "backbones": list(self.backbones),
            "splits": {
                split: {"documents": self.sampled[split], **counts.as_json()} for split, counts in self.splits.items()
            },
        }


def measure_limits(
    space: SearchSpace, corpus: Corpus, *, exclude: Collection[str] = ()
) -> tuple[list[FormulationLimits], list[Problem]]:
    """Count the concepts that each formulation of a space can express with each tokenizer.

    Args:
        space: The space.
        corpus: Its corpus; of a large split, documents at regular distances are counted.
        exclude: Names of backbones without a tokenizer.

    Returns:
        The counts; and a problem for each backbone whose tokenizer cannot be loaded.
    """
    from clinie_core.backbones.tokenizer import load_tokenizer

    samples = {split: _sample_documents(documents) for split, documents in corpus.splits.items() if documents}
    schema = Schema.from_documents(corpus["train"] or sum(corpus.splits.values(), ()), space.file.view.descriptions)
    counted: dict[tuple[str, str], dict[str, RepresentableCounts]] = {}  # by tokenizer and formulation
    rows: list[FormulationLimits] = []
    problems: list[Problem] = []
    for source in space.backbones:
        configs = [] if source.name in exclude else list(space.list_formulations(source.name))
        if not configs:
            continue
        try:
            tokenizer = load_tokenizer(source)
        except (InputError, ImportError, OSError, ValueError) as error:
            found = f"the tokenizer of {source.name!r} cannot be loaded ({type(error).__name__})"
            remedy = "concepts that it cannot represent are not reported"
            problems.append(Problem("space.backbone", found, remedy=remedy, severity="warning"))
            continue
        for config in configs:
            choice = _select_limiting_parameters(config.formulation)
            key = (
                f"{tokenizer.backend_tokenizer.to_str()}{tokenizer.chat_template}",
                choice.model_dump_json(),
            )  # several backbones may share a tokenizer
            if key not in counted:
                try:
                    with disable_tokenizer_threads():
                        counted[key] = _count(config, tokenizer, schema, samples)
                except InputError as error:  # such as a window that is too short for the instruction
                    problems += [replace(problem, severity="warning") for problem in error.problems]
                    continue
            sizes = {split: len(documents) for split, documents in samples.items()}
            rows.append(FormulationLimits(choice, (source.name,), counted[key], sizes))
    return _merge_backbones(rows), problems


def _count(
    config: TrialConfig,
    tokenizer: PreTrainedTokenizerFast,
    schema: Schema,
    samples: Mapping[str, tuple[Document, ...]],
) -> dict[str, RepresentableCounts]:
    """Count the concepts that a configuration's formulation can express, by split."""
    from clinie_core.formulations.input_context import build_input_context

    formulation = FORMULATIONS.load(config.formulation.name).model_validate(config.formulation.parameters)
    context = build_input_context(config, tokenizer, schema)
    if formulation.generates and config.task != "relations":
        context = replace(context, task=formulation.split_task(config.task)[0])
        training = formulation.encode(samples.get("train", ()), context, targets=True)
        examples = [example for item in training for example in item.examples]
        context = replace(context, answer_tokens=formulation.limit_answer_tokens(examples) if examples else None)
    counts = {
        split: formulation.count_representable(
            documents, formulation.encode(documents, context, targets=False), context
        )
        for split, documents in samples.items()
    }
    return {split: own for split, own in counts.items() if own is not None}


def _select_limiting_parameters(choice: ComponentChoice) -> ComponentChoice:
    """Keep the parameters that determine the limits of a formulation and are not the default."""
    formulation = FORMULATIONS.load(choice.name).model_validate(choice.parameters)
    changed = formulation.model_dump(exclude_defaults=True)
    kept = {name: changed[name] for name in formulation.limiting_parameters or () if name in changed}
    return ComponentChoice(name=choice.name, parameters=kept)


def _merge_backbones(rows: Iterable[FormulationLimits]) -> list[FormulationLimits]:
    """Merge the rows of backbones with equal counts."""
    merged: list[FormulationLimits] = []
    for row in rows:
        known = next((r for r in merged if (r.formulation, r.splits) == (row.formulation, row.splits)), None)
        if known is None:
            merged.append(row)
        else:
            merged[merged.index(known)] = replace(known, backbones=known.backbones + row.backbones)
    return merged


def find_unexpected_limits(limits: Sequence[FormulationLimits], where: str) -> list[Problem]:
    """Return a warning for each formulation and split with too small a share of representable concepts.

    Args:
        limits: The counts.
        where: Name of the space file.
    """
    problems = []
    for row in limits:
        for split, counts in row.splits.items():
            if counts.share >= EXPECTED_SHARE:
                continue
            lost = counts.by_reason()
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in lost.items())
            found = (
                f"{row.title} can express only {100 * counts.share:.2f} % of the {counts.concepts.total():,} concepts"
                f" of {split} with {', '.join(row.backbones)} (lost: {reasons};"
                f" lowest: {row.describe_low_types(split)})"
            )
            remedies = REMEDIES | (ANSWER_REMEDIES if FORMULATIONS.load(row.formulation.name).generates else {})
            remedy = remedies[max(remedies, key=lambda reason: lost.get(reason, 0))]
            problems.append(
                Problem(f"{where}: space.formulation.{row.formulation.name}", found, remedy=remedy, severity="warning")
            )
    return problems


def describe_limits(limits: Sequence[FormulationLimits]) -> str:
    """Return the shares of each formulation and split, and the types with low shares, in at most 4,000 characters."""
    parts = []
    for row in limits:
        low = [f"{split}: {types}" for split in row.splits if (types := row.describe_low_types(split))]
        parts.append(f"{row}{'; lowest types of ' if low else ''}{'; '.join(low)}")
    return "\n".join(parts)[:4000]


def _sample_documents(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Return documents at regular distances, with about :data:`SAMPLED_CHARACTERS` at most."""
    characters = sum(len(document.text) for document in documents)
    return tuple(documents[:: max(1, -(-characters // SAMPLED_CHARACTERS))])


@contextmanager
def disable_tokenizer_threads() -> Iterator[None]:
    """Keep the tokenizers library from starting threads, since it warns when a process with them is forked."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
