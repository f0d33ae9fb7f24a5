"""The plan of a search: dimensions, number of configurations and some of them with their size, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import Problem
from search.cluster.capacity import check_cluster
from search.config.domains import RandomChooser
from search.config.seeds import derive_seed
from search.config.space_file import SpaceFile
from search.config.validation import ValidatedSpace
from search.study.limits import FormulationLimits, find_unexpected_limits, measure_limits
from search.study.sampler_description import describe_dimension, describe_sampler
from search.study.sizes import ConfigurationSize, SizeEstimator

if TYPE_CHECKING:
    from clinie_core.data.corpora.detection import Detection

__all__ = ["SearchPlan", "plan_search"]

ASSUMED_TYPES = 10
"""Number of concept types that sizes assume where the corpus cannot be read."""


@dataclass(frozen=True)
class SearchPlan:
    """A validated space with some of its configurations.

    Args:
        file: The space file.
        detections: The detected formats of the corpora, by name of the corpus.
        dimensions: Description of each dimension's domain, by path.
        sampler: What the sampler ``auto`` tries; empty for the others.
        configurations: Number of configurations; None if a dimension is a range of real numbers.
        samples: Configurations drawn at random.
        sizes: Size of each sample.
        note: Why the corpus could not be read; empty if it was.
        limits: Concepts that each formulation can express; empty if the corpus could not be read.
        warnings: Notices of the corpus, limits that are lower than expected, tokenizers that cannot be loaded, and
            GPUs that the space does not use; and what is unknown of backbones that are not available.
    """

    file: SpaceFile
    detections: Mapping[str, Detection]
    dimensions: dict[str, str]
    sampler: str
    configurations: int | None
    samples: list[TrialConfig]
    sizes: list[ConfigurationSize]
    note: str
    limits: list[FormulationLimits]
    warnings: list[Problem]

    def as_json(self) -> dict[str, Any]:
        """Return the plan for ``--json``."""
        return {
            "study": self.file.study,
            "dimensions": self.dimensions,
            "sampler": self.sampler or self.file.algorithm.sampler,
            "configurations": self.configurations,
            "corpus": self.note or "read",
            "formats": {source.title: source.format for source in self.file.corpus},
            "representable": [row.as_json() for row in self.limits],
            "warnings": [str(warning) for warning in self.warnings],
            "samples": [
                {
                    "parameters": config.flatten(),
                    "total_parameters": size.parameters,
                    "trainable_parameters": size.trainable,
                    "memory_mb": round(size.memory_mb),
                    "micro_batch": size.micro_batch,
                    "fits": size.fits,
                    "simulated": size.is_simulated,
                    "note": size.note,
                }
                for config, size in zip(self.samples, self.sizes, strict=True)
            ],
        }


def plan_search(validated: ValidatedSpace, samples: int, *, simulate: bool = False) -> SearchPlan:
    """Draw configurations from a validated space and estimate their memory.

    Configurations whose backbone is not available get a lower bound, because a simulation of a large model takes long
    and such a space cannot be searched yet.

    Args:
        validated: The space; its corpus may be missing.
        samples: Number of configurations to draw.
        simulate: Simulate a training step of backbones that are not available, too.
    """
    file, space = validated.file, validated.space
    configs = [space.suggest(RandomChooser(derive_seed(file.algorithm.seed, i))) for i in range(samples)]
    schema, note = _read_schema(validated)
    limits: list[FormulationLimits] = []
    problems: list[Problem] = []
    if validated.corpus is not None:
        limits, problems = measure_limits(space, validated.corpus, exclude=validated.stand_ins)
    notices = list(validated.corpus.notices) if validated.corpus is not None else []
    estimator = SizeEstimator(space, schema, validated.corpus, () if simulate else validated.stand_ins)
    size = space.size()
    return SearchPlan(
        file,
        validated.detections,
        {path: describe_dimension(space, path, domain) for path, domain in space.dimensions()},
        describe_sampler(space),
        None if math.isinf(size) else int(size),
        configs,
        estimator.estimate(configs),
        note,
        limits,
        [
            *validated.notices,
            *notices,
            *find_unexpected_limits(limits, validated.where),
            *problems,
            *check_cluster(file.resources, validated.where, Path.cwd()),
        ],
    )


def _read_schema(validated: ValidatedSpace) -> tuple[Schema, str]:
    """Return the schema of the training documents; an assumed one, with a note, if the corpus cannot be read."""
    if validated.corpus is not None:
        return Schema.from_documents(validated.corpus["train"], validated.file.view.descriptions), ""
    types = tuple(f"type-{i}" for i in range(ASSUMED_TYPES))
    links = tuple((f"link-{i}", types[0], types[i]) for i in range(ASSUMED_TYPES))
    note = f"cannot read the corpus ({validated.corpus_problems[0]}); sizes assume {ASSUMED_TYPES} concept types"
    return Schema(concept_types=types, links=links), note
