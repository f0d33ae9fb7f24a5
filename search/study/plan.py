"""The plan of a search: dimensions, number of configurations and some of them with their size, without training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinie_core.config import TrialConfig
from clinie_core.data.corpora.views import apply_view
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError, Problem
from search.config.domains import RandomChooser
from search.config.seeds import derive_seed
from search.config.space_file import Resources, SpaceFile
from search.config.validation import ValidatedSpace
from search.study.limits import FormulationLimits, disable_tokenizer_threads, find_unexpected_limits, measure_limits

if TYPE_CHECKING:
    from clinie_core.data.corpora.detection import Detection
    from clinie_core.training.hardware import Hardware
    from clinie_core.training.memory_estimate import MemoryEstimate
    from clinie_core.training.synthetic_inputs import LargestInput

__all__ = ["SearchPlan", "plan_search"]

ENCODED_CHARACTERS = 300_000
"""Largest number of characters of a split whose documents are encoded to find the longest inputs."""
ASSUMED_TYPES = 10
"""Number of concept types that sizes assume where the corpus cannot be read."""


@dataclass(frozen=True)
class SearchPlan:
    """A validated space with some of its configurations.

    Args:
        file: The space file.
        detections: The detected formats of the corpora, by name of the corpus.
        dimensions: Description of each dimension's domain, by path.
        configurations: Number of configurations; None if a dimension is a range of real numbers.
        samples: Configurations drawn at random.
        sizes: Memory estimate of each sample.
        note: Why the corpus could not be read; empty if it was.
        limits: Concepts that each formulation can express; empty if the corpus could not be read.
        warnings: Notices of the corpus, limits that are lower than expected, tokenizers that cannot be loaded, and
            GPUs that the space does not use.
    """

    file: SpaceFile
    detections: Mapping[str, Detection]
    dimensions: dict[str, str]
    configurations: int | None
    samples: list[TrialConfig]
    sizes: list[MemoryEstimate]
    note: str
    limits: list[FormulationLimits]
    warnings: list[Problem]

    def as_json(self) -> dict[str, Any]:
        """Return the plan for ``--json``."""
        return {
            "study": self.file.study,
            "dimensions": self.dimensions,
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
                    "note": size.note,
                }
                for config, size in zip(self.samples, self.sizes, strict=True)
            ],
        }


def plan_search(validated: ValidatedSpace, samples: int) -> SearchPlan:
    """Draw configurations from a validated space and estimate their memory.

    Args:
        validated: The space; its corpus may be missing.
        samples: Number of configurations to draw.
    """
    file, space = validated.file, validated.space
    configs = [space.suggest(RandomChooser(derive_seed(file.algorithm.seed, i))) for i in range(samples)]
    schema, note = _read_schema(validated)
    from clinie_core.training.memory_estimate import estimate_memory  # imports torch, which an invalid space must not
    from search.cluster.devices import check_gpu_use

    limits, problems = measure_limits(space, validated.corpus) if validated.corpus is not None else ([], [])
    notices = list(validated.corpus.notices) if validated.corpus is not None else []
    processes, hardware = file.resources.workers_per_trial, _find_hardware(file.resources)
    inputs = _find_inputs(configs, validated.corpus, processes)
    size = space.size()
    return SearchPlan(
        file,
        validated.detections,
        {path: str(domain) for path, domain in space.dimensions()},
        None if math.isinf(size) else int(size),
        configs,
        [
            estimate_memory(config, schema, processes=processes, hardware=hardware, inputs=largest)
            for config, largest in zip(configs, inputs, strict=True)
        ],
        note,
        limits,
        notices
        + find_unexpected_limits(limits, validated.where)
        + problems
        + check_gpu_use(file.resources, validated.where, Path.cwd()),
    )


def _find_hardware(resources: Resources) -> Hardware:
    """Return the hardware of a worker on this machine; the memory of a GPU is unknown if this machine has none."""
    import torch

    from clinie_core.training.hardware import MEMORY_SHARE, Hardware

    available = torch.cuda.is_available()
    gpus = float(available) if resources.gpus_per_worker == "auto" else resources.gpus_per_worker
    if gpus:
        memory = torch.cuda.get_device_properties(0).total_memory if available else None
        return Hardware("cuda", memory and MEMORY_SHARE * min(1.0, gpus) * memory / 2**20)
    workers = max(1, int((os.cpu_count() or 1) / resources.cpus_per_worker))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware("cpu", MEMORY_SHARE * memory / workers / 2**20)


def _find_inputs(
    configs: Sequence[TrialConfig], corpus: Corpus | None, processes: int
) -> list[dict[str, LargestInput] | None]:
    """Return the largest inputs of each configuration in the longest documents of the corpus.

    The entry of a configuration is None if the corpus or the tokenizer cannot be read; windows are then full.
    """
    if corpus is None:
        return [None] * len(configs)
    from clinie_core.modeling.model_cache import ModelCache
    from clinie_core.training.synthetic_inputs import find_largest_inputs
    from clinie_core.training.training_data import TrainingData

    selected, cache = Corpus({split: _select_longest(corpus[split]) for split in ("train", "dev")}), ModelCache()
    found: list[dict[str, LargestInput] | None] = []
    for config in configs:
        try:
            with disable_tokenizer_threads():
                data = TrainingData.encode(config, apply_view(selected, config.view), cache)
        except (InputError, ImportError, OSError, ValueError):  # reported elsewhere
            found.append(None)
            continue
        inputs = find_largest_inputs(config, data, processes)
        found.append({name: replace(own, predictions=None) for name, own in inputs.items()})
    return found


def _select_longest(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Return the longest documents, with about :data:`ENCODED_CHARACTERS` in total."""
    ordered = sorted(documents, key=lambda document: -len(document.text))
    ends = accumulate(len(document.text) for document in ordered)
    return tuple(document for document, end in zip(ordered, ends, strict=True) if end <= ENCODED_CHARACTERS) or tuple(
        ordered[:1]
    )


def _read_schema(validated: ValidatedSpace) -> tuple[Schema, str]:
    """Return the schema of the training documents; an assumed one, with a note, if the corpus cannot be read."""
    if validated.corpus is not None:
        return Schema.from_documents(validated.corpus["train"], validated.file.view.descriptions), ""
    types = tuple(f"type-{i}" for i in range(ASSUMED_TYPES))
    links = tuple((f"link-{i}", types[0], types[i]) for i in range(ASSUMED_TYPES))
    note = f"cannot read the corpus ({validated.corpus_problems[0]}); sizes assume {ASSUMED_TYPES} concept types"
    return Schema(concept_types=types, links=links), note
