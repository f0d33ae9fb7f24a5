"""Formulations: how a task becomes model input and output, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.registry import Registry

if TYPE_CHECKING:
    from clinie_core.config import ComponentChoice, TrialConfig
    from clinie_core.formulations.formulation import Formulation

__all__ = ["FORMULATIONS", "build_components"]

FORMULATIONS: Registry[type[Formulation]] = Registry(
    "formulation",
    {
        "token_classification": "clinie_core.formulations.token_classification:TokenClassification",
        "span_pointer": "clinie_core.formulations.span_pointer:SpanPointer",
        "span_question": "clinie_core.formulations.span_question:SpanQuestion",
        "marked_pairs": "clinie_core.formulations.marked_pairs:MarkedPairs",
        "generation": "clinie_core.formulations.generation:Generation",
        "relation_question": "clinie_core.formulations.relation_question:RelationQuestion",
    },
)


def build_components(config: TrialConfig) -> dict[str, Formulation]:
    """A configuration's formulations, their parameters validated, in the order in which they predict.

    Returns:
        By component: ``concepts``, ``relations``, both where ``joint`` has two formulations or one that asks
        for each apart, or ``joint`` where one does it all at once.
    """

    def made(part: ComponentChoice) -> Formulation:
        return FORMULATIONS.load(part.name).model_validate(part.parameters)

    if config.relation_formulation is not None:
        return {"concepts": made(config.formulation), "relations": made(config.relation_formulation)}
    formulation = made(config.formulation)
    return dict.fromkeys(formulation.components(config.task), formulation)
