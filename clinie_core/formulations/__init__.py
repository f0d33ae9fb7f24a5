"""Formulations: conversion of a task to model input and output, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.registry import Registry

if TYPE_CHECKING:
    from clinie_core.config import ComponentChoice, TrialConfig
    from clinie_core.formulations.formulation import Formulation

__all__ = ["FORMULATIONS", "build_components"]

FORMULATIONS: Registry[type[Formulation[object]]] = Registry(
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


def build_components(config: TrialConfig) -> dict[str, Formulation[object]]:
    """Build a configuration's formulations and validate their parameters.

    Returns:
        Formulations by component, in the order in which they predict. The components are ``concepts``,
        ``relations``, or both; ``joint`` if one formulation predicts concepts and relations at once.
    """

    def build(part: ComponentChoice) -> Formulation[object]:
        return FORMULATIONS.load(part.name).model_validate(part.parameters)

    if config.relation_formulation is not None:
        return {"concepts": build(config.formulation), "relations": build(config.relation_formulation)}
    formulation = build(config.formulation)
    return dict.fromkeys(formulation.split_task(config.task), formulation)
