"""Formulations: how a task becomes model input and output, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.table import Table

if TYPE_CHECKING:
    from clinie_core.formulations.formulation import Formulation

__all__ = ["FORMULATIONS"]

FORMULATIONS: Table[type[Formulation]] = Table(
    "formulation",
    {"token_classification": "clinie_core.formulations.token_classification:TokenClassification"},
)
