"""The model card of a registered model: intended use, scores, costs, limits and origin."""

from __future__ import annotations

from collections.abc import Mapping

from clinie_core.modeling.checkpoint import Checkpoint
from search.config.description import describe_config
from search.promotion.gate import Decision, TypeScore
from search.tracking.description_table import make_description_table

__all__ = ["FOLDS", "SEEDS", "render_model_card"]

SEEDS = "clinie.dev_seeds"
"""Tag of a version: mean and standard deviation of the dev score over seeds."""
FOLDS = "clinie.dev_folds"
"""Tag of a version: mean and standard deviation of the dev score over folds."""

SMALL_SUPPORT = 30
"""Number of gold annotations below which the scores of a type are uncertain."""


def render_model_card(checkpoint: Checkpoint, facts: Mapping[str, str], decision: Decision | None) -> str:
    """Render the model card as Markdown.

    Args:
        checkpoint: Checkpoint of the model.
        facts: Tags of the registered version.
        decision: Decision of the promotion policy; None before the test split is read.
    """
    config = checkpoint.config
    parts = [
        f"**{config.task}** from clinical text: {describe_config(config)}",
        f"### Intended use\n\n{_describe_use(checkpoint, facts)}",
        "### Scores\n\n" + _describe_scores(checkpoint, facts, decision),
        "### Limits\n\n" + "\n".join(f"- {limit}" for limit in _list_limits(checkpoint, decision)),
    ]
    if decision is not None:
        parts.append("### Promotion\n\n" + _describe_promotion(decision))
    study, trial = facts["clinie.study"], facts["clinie.trial"]
    parts.append(
        f"### Origin\n\nTrial {trial} of study {study}, trained on {facts['clinie.corpus']}; backbone"
        f" stored as `{facts['clinie.base']}`. `clinie repeat {study} {trial}` trains it again."
    )
    return "\n\n".join(parts)


def _describe_use(checkpoint: Checkpoint, facts: Mapping[str, str]) -> str:
    schema = checkpoint.schema
    lines = [
        f"Extraction from texts like those of {facts['clinie.corpus']}, for research and for review by a person. The"
        " model is not a medical device: its output alone must not decide on the care of a patient.",
        f"Concept types: {', '.join(schema.concept_types) or 'none'}.",
    ]
    if schema.relation_types and checkpoint.config.task != "concepts":
        lines.append(f"Relation types: {', '.join(schema.relation_types)}.")
    lines.append("Offsets are half-open and count code points.")
    return "\n\n".join(lines)


def _describe_scores(checkpoint: Checkpoint, facts: Mapping[str, str], decision: Decision | None) -> str:
    dev = (
        f"Strict F1 on dev is {checkpoint.metrics['strict_f1']:.4f}; it is optimistic, because dev selected the model."
    )
    if SEEDS in facts:
        dev += f" With other seeds: {facts[SEEDS]}."
    if FOLDS in facts:
        dev += f" In cross-validation: {facts[FOLDS]}. The weights are those of the first fold: they were trained on"
        dev += " the documents of the other folds."
    if decision is None:
        return dev
    test = decision.test
    low, high = decision.interval
    reads = "the first read" if decision.read == 1 else f"read {decision.read}"
    whole = TypeScore(
        test["strict_f1"],
        sum(score.support for score in decision.types.values()),
        test.get("strict_precision"),
        test.get("strict_recall"),
    )
    rows = [
        (name, _format(score.precision), _format(score.recall), f"{score.f1:.4f}", score.support)
        for name, score in [("all", whole), *sorted(decision.types.items())]
    ]
    table = make_description_table(("type", "precision", "recall", "F1", "support"), rows)
    return "\n\n".join(
        [
            f"Strict F1 on test is **{test['strict_f1']:.4f}** (95 % interval {low:.4f} to {high:.4f}), lenient F1"
            f" {test['lenient_f1']:.4f}. This is {reads} of this test split.",
            table,
            "Support is the number of gold annotations; all scores in the table are strict.",
            dev,
        ]
    )


def _list_limits(checkpoint: Checkpoint, decision: Decision | None) -> list[str]:
    limits = [
        "The scores hold for texts like those of the training corpus. For other texts, first measure the model with"
        " `clinie evaluate`.",
        "Only the types above are extracted. Negation, family history and other contexts are ignored unless they are"
        " types of the corpus.",
    ]
    if decision is None:
        return limits
    weak = [name for name, score in sorted(decision.types.items()) if score.support < SMALL_SUPPORT]
    if weak:
        limits.append(
            f"Fewer than {SMALL_SUPPORT} test annotations, so that the scores are uncertain: {', '.join(weak)}."
        )
    schema, task = checkpoint.schema, checkpoint.config.task
    types = [
        *(() if task == "relations" else schema.concept_types),
        *(() if task == "concepts" else schema.relation_types),
    ]
    untested = [name for name in types if name not in decision.types]
    if untested:
        limits.append(f"Not in the test split, so that their scores are unknown: {', '.join(untested)}.")
    if decision.read > 1:
        limits.append(f"The test split was read {decision.read} times; the level of the gate accounts for this.")
    costs = decision.costs
    limits.append(
        f"Prediction takes {costs['seconds_per_document'] * 1000:.0f} ms per document and"
        f" {costs['peak_memory_mb']:,.0f} MiB of memory on the machine that promoted the model; its files have"
        f" {costs['size_mb']:,.0f} MiB."
    )
    return limits


def _describe_promotion(decision: Decision) -> str:
    result = "The model passed the promotion policy." if decision.promote else "The promotion policy refused the model."
    rows = [(check.rule, "passed" if check.passed else "**failed**", check.detail) for check in decision.checks]
    return "\n\n".join([result, make_description_table(("rule", "result", "numbers"), rows)])


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
