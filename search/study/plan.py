"""The plan of a search: dimensions, number of configurations and some of them with their size, without training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import Problem
from search.cluster.capacity import Capacity, find_capacity, resolve_classes
from search.cluster.devices import find_unused_gpus
from search.config.domains import RandomChooser
from search.config.resources import Resources
from search.config.seeds import derive_seed
from search.config.space_file import SpaceFile
from search.config.validation import ValidatedSpace
from search.study.cached_limits import read_or_measure_limits
from search.study.gpu_shares import choose_gpu_shares
from search.study.limits import FormulationLimits, find_unexpected_limits
from search.study.pair_sizes import PairSize, measure_pairs
from search.study.placement import Placement
from search.study.sampler_description import describe_dimension, describe_sampler
from search.study.sizes import ConfigurationSize, SizeEstimator

if TYPE_CHECKING:
    from clinie_core.data.corpora.detection import Detection

__all__ = ["SearchPlan", "plan_search", "read_schema"]

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
        pairs: Size of the largest trials for each backbone and fine-tuning method.
        samples: Configurations drawn at random.
        classes: Resource class of each sample.
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
    pairs: list[PairSize]
    samples: list[TrialConfig]
    classes: list[Resources]
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
            "sizes": [pair.as_json() for pair in self.pairs],
            "samples": [
                {
                    "parameters": config.flatten(),
                    "total_parameters": size.parameters,
                    "trainable_parameters": size.trainable,
                    "memory_mb": math.ceil(size.memory_mb),
                    "resources": own.name,
                    "micro_batch": size.micro_batch,
                    "fits": size.fits,
                    "simulated": size.is_simulated,
                    "note": size.note,
                }
                for config, own, size in zip(self.samples, self.classes, self.sizes, strict=True)
            ],
        }


def plan_search(
    validated: ValidatedSpace, samples: int, *, simulate: bool = False, cluster: Capacity | None = None
) -> SearchPlan:
    """Draw configurations from a validated space and estimate their memory.

    A training step is simulated where its memory decides: with several resource classes, or for the shares of a GPU.
    Otherwise, and for backbones that are not available, a configuration that was not simulated before gets a lower
    bound, because simulations take seconds.

    Args:
        validated: The space; its corpus may be missing.
        samples: Number of configurations to draw.
        simulate: Simulate a training step of every configuration.
        cluster: Capacity of a cluster that can hold each class of the space, or the space is rejected; by default
            that of the cluster that ``RAY_ADDRESS`` names, or of this machine.

    Raises:
        InputError: If the cluster can never hold a trial of a resource class.
    """
    file, space = validated.file, validated.space
    capacity, cluster_problems = (cluster, []) if cluster is not None else find_capacity(Path.cwd())
    if capacity is not None and (cluster is not None or os.environ.get("RAY_ADDRESS")):
        resolve_classes(file.resources, capacity, validated.where)
    configs = [space.suggest(RandomChooser(derive_seed(file.algorithm.seed, i))) for i in range(samples)]
    schema, note = read_schema(validated)
    limits: list[FormulationLimits] = []
    problems: list[Problem] = []
    if validated.corpus is not None:
        limits, problems = read_or_measure_limits(space, validated.corpus, exclude=validated.stand_ins)
    notices = list(validated.corpus.notices) if validated.corpus is not None else []
    needs_memory = len(file.resources) > 1 or (capacity is not None and capacity.count_gpus() > 0)
    unsimulated = validated.stand_ins if needs_memory else {source.name for source in space.backbones}
    bounded = () if simulate else unsimulated
    estimator = SizeEstimator(space, schema, validated.corpus, bounded).limit_time()
    if capacity is not None and capacity.count_gpus():
        file = file.model_copy(update={"resources": choose_gpu_shares(space, estimator, capacity)})
    placement = Placement(file, estimator.measure)
    placed = [placement.measure(config) for config in configs]
    size = space.size()
    return SearchPlan(
        file,
        validated.detections,
        {path: describe_dimension(space, path, domain) for path, domain in space.dimensions()},
        describe_sampler(space),
        None if math.isinf(size) else int(size),
        measure_pairs(space, placement, capacity),
        configs,
        [own for own, _ in placed],
        [size for _, size in placed],
        note,
        limits,
        [
            *validated.notices,
            *notices,
            *find_unexpected_limits(limits, validated.where),
            *problems,
            *cluster_problems,
            *(find_unused_gpus(file.resources, capacity.count_gpus(), validated.where) if capacity else []),
        ],
    )


def read_schema(validated: ValidatedSpace) -> tuple[Schema, str]:
    """Return the schema of the training documents; an assumed one, with a note, if the corpus cannot be read."""
    if validated.corpus is not None:
        return Schema.from_documents(validated.corpus["train"], validated.file.view.descriptions), ""
    types = tuple(f"type-{i}" for i in range(ASSUMED_TYPES))
    links = tuple((f"link-{i}", types[0], types[i]) for i in range(ASSUMED_TYPES))
    note = f"cannot read the corpus ({validated.corpus_problems[0]}); sizes assume {ASSUMED_TYPES} concept types"
    return Schema(concept_types=types, links=links), note
