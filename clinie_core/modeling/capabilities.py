"""Supported combinations of task, architecture, formulation and fine-tuning method.

Each row of ``FORMULATIONS`` and ``FINETUNING`` declares what it supports; this module combines them. Search spaces
are validated with it, and a contract test trains every combination.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clinie_core.backbones.facts import Architecture
from clinie_core.config import Task
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS

__all__ = ["Cell", "list_cells", "list_finetuning_methods", "list_formulations", "list_relation_formulations"]

ARCHITECTURES: tuple[Architecture, ...] = ("encoder", "decoder")
TASKS: tuple[Task, ...] = ("concepts", "relations", "joint")


@dataclass(frozen=True)
class Cell:
    """One supported combination."""

    task: Task
    architecture: Architecture
    formulation: str
    relation_formulation: str | None
    finetuning: str

    def __str__(self) -> str:
        middle = "+".join(filter(None, (self.formulation, self.relation_formulation)))
        return f"{self.task}-{self.architecture}-{middle}-{self.finetuning}"


def list_formulations(task: Task, architecture: Architecture) -> dict[str, bool]:
    """Return the formulations that support a task on an architecture.

    Returns:
        Name of each formulation, and whether it needs an additional relation formulation. The latter is the case in
        ``joint`` for a formulation that extracts concepts only.
    """
    found = {}
    for name in FORMULATIONS:
        row = FORMULATIONS.load(name)
        if architecture not in row.architectures:
            continue
        if task in row.tasks:
            found[name] = False
        elif task == "joint" and "concepts" in row.tasks and list_relation_formulations(architecture):
            found[name] = True
    return found


def list_relation_formulations(architecture: Architecture) -> list[str]:
    """Return the formulations that extract relations between concepts predicted by another formulation.

    Generative formulations are excluded: a backbone has either a language-model head or task heads on hidden states.
    """
    rows = {name: FORMULATIONS.load(name) for name in FORMULATIONS}
    return [
        n for n, r in rows.items() if "relations" in r.tasks and architecture in r.architectures and not r.generates
    ]


def list_finetuning_methods(architecture: Architecture) -> list[str]:
    """Return the fine-tuning methods that an architecture supports."""
    return [name for name in FINETUNING if architecture in FINETUNING.load(name).architectures]


def list_cells() -> Iterator[Cell]:
    """Yield every supported combination."""
    for task in TASKS:
        for architecture in ARCHITECTURES:
            for formulation, needs_another in list_formulations(task, architecture).items():
                seconds = list_relation_formulations(architecture) if needs_another else [None]
                for second in seconds:
                    for method in list_finetuning_methods(architecture):
                        yield Cell(task, architecture, formulation, second, method)
