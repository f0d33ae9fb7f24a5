"""The model card of a registered model: task, scores, costs and limits of use."""

from __future__ import annotations

from collections.abc import Mapping

from clinie_core.modeling.checkpoint import Checkpoint
from search.config.description import describe_config
from search.promotion.gate import Decision

__all__ = ["SEEDS", "render_model_card"]

SEEDS = "clinie.dev_seeds"
"""Tag of a version: mean and standard deviation of the dev score over seeds."""


def render_model_card(checkpoint: Checkpoint, facts: Mapping[str, str], decision: Decision | None) -> str:
    """Render the model card as Markdown.

    Args:
        checkpoint: Checkpoint of the model.
        facts: Tags of the registered version.
        decision: Decision of the promotion policy; None before the test split is read.
    """
    config, schema = checkpoint.config, checkpoint.schema
    lines = [
        f"**{config.task}** from clinical text: {describe_config(config)}",
        "",
        f"Trained on {facts['clinie.corpus']} (trial {facts['clinie.trial']} of study {facts['clinie.study']}), "
        f"backbone {facts['clinie.base']}.",
        "",
        f"Concept types: {', '.join(schema.concept_types) or 'none'}.",
    ]
    if schema.relation_types:
        lines += ["", f"Relation types: {', '.join(schema.relation_types)}."]
    lines += [
        "",
        f"Dev strict F1 {checkpoint.metrics['strict_f1']:.4f}: optimistic, since the model was selected on dev.",
    ]
    if SEEDS in facts:
        lines += ["", f"With other seeds: {facts[SEEDS]}."]
    if decision is not None:
        low, high = decision.interval
        lines += [
            "",
            f"Test strict F1 **{decision.test['strict_f1']:.4f}** (95 % interval {low:.4f} to {high:.4f}), read "
            f"{decision.read} of this split; lenient {decision.test['lenient_f1']:.4f}.",
            "",
            "| type | test F1 | gold |",
            "|---|---|---|",
            *(f"| {name} | {score.f1:.4f} | {score.support} |" for name, score in sorted(decision.types.items())),
            "",
            f"Prediction takes {decision.costs['seconds_per_document'] * 1000:.0f} ms per document and "
            f"{decision.costs['peak_memory_mb']:,.0f} MiB of memory on the machine that promoted the model. "
            f"Its files have {decision.costs['size_mb']:,.0f} MiB.",
            "",
            "Promotion policy: " + ("passed." if decision.promote else "refused. " + "; ".join(decision.refusals)),
        ]
    lines += [
        "",
        "Offsets are half-open and count code points. The scores hold for texts like those of the training corpus; for"
        " other texts, first measure the model with `clinie evaluate`.",
    ]
    return "\n".join(lines)
