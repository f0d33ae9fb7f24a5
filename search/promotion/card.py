"""A registered model's card: what it is, what it scored, what it costs, how it is used."""

from __future__ import annotations

from collections.abc import Mapping

from clinie_core.modeling.checkpoint import Checkpoint
from search.config.description import describe_config
from search.promotion.gate import Decision

__all__ = ["render_model_card"]


def render_model_card(checkpoint: Checkpoint, facts: Mapping[str, str], decision: Decision | None) -> str:
    """The card in Markdown.

    Args:
        checkpoint: The model.
        facts: The version's tags.
        decision: What the test split said; None before it was read.
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
    lines += ["", f"Dev strict F1 {checkpoint.metrics['strict_f1']:.4f}: it chose this model and is optimistic."]
    if decision is not None:
        low, high = decision.interval
        lines += [
            "",
            f"Test strict F1 **{decision.test['strict_f1']:.4f}** (95 % interval {low:.4f} to {high:.4f}), read no. "
            f"{decision.read} of this split; lenient {decision.test['lenient_f1']:.4f}.",
            "",
            "| type | test F1 | gold |",
            "|---|---|---|",
            *(f"| {name} | {score.f1:.4f} | {score.support} |" for name, score in sorted(decision.types.items())),
            "",
            f"Predicting takes {decision.costs['seconds_per_document'] * 1000:.0f} ms a document and "
            f"{decision.costs['peak_memory_mb']:,.0f} MiB where it was promoted; its files are "
            f"{decision.costs['size_mb']:,.0f} MiB.",
            "",
            "Gate: " + ("kept every rule." if decision.promote else "refused. " + "; ".join(decision.refusals)),
        ]
    lines += [
        "",
        "Offsets are code points, half-open. Scores hold for text like the corpus it was trained on; on other notes"
        " check it first with `clinie evaluate`.",
    ]
    return "\n".join(lines)
