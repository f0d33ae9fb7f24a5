"""Sizes of sampled configurations for a plan: simulated, or a lower bound from facts about the backbone.

A simulation takes seconds and needs torch. Its result is therefore kept in the cache folder. The key contains
everything that it depends on: settings, backbone, annotation types, hardware, and the versions of the libraries.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from clinie_core.backbones.facts import read_config
from clinie_core.config import TrialConfig
from clinie_core.data.corpora.views import apply_view
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.training.hardware import MEMORY_SHARE, Hardware
from search.cluster.devices import has_gpu_driver
from search.config.resources import Resources
from search.config.search_space import SearchSpace
from search.study.cache_file import CacheFile, compute_digest, find_versions
from search.study.limits import disable_tokenizer_threads

if TYPE_CHECKING:
    from clinie_core.modeling.model_cache import ModelCache
    from clinie_core.training.synthetic_inputs import LargestInput

__all__ = ["ConfigurationSize", "SizeEstimator", "find_hardware"]

MIB = 2**20
ENCODED_CHARACTERS = 300_000
"""Largest number of characters of a split whose documents are encoded to find the longest inputs."""
SIMULATION_SECONDS = 60.0
"""Time after which a plan starts no further simulation."""
TRAINED_BYTES = 16
"""Bytes of a trained parameter: the weight, its gradient and two moments of the optimizer in float32."""
FROZEN_BYTES = 2
"""Bytes of a frozen parameter at least: bfloat16."""
IRRELEVANT = {
    *("epochs", "weight_decay", "warmup_ratio", "schedule", "patience", "seed", "selection"),
    *("sampling_exponent", "train_documents", "view"),
}
"""Fields of a configuration that do not affect its memory."""


@dataclass(frozen=True)
class ConfigurationSize:
    """Size of a configuration.

    Args:
        parameters: Number of parameters; without a simulation, that of the backbone.
        trainable: Number of parameters that training changes; None if it is unknown.
        memory_mb: Peak memory of the tensors of each process in MiB; without a simulation, the least that weights,
            gradients and the optimizer's state need.
        micro_batch: Windows per forward pass; None if it is unknown.
        fits: Whether the memory fits into the hardware's; True if that is unknown.
        is_simulated: Whether a training step was simulated.
        note: Why the training step could not be simulated completely.
    """

    parameters: int
    trainable: int | None
    memory_mb: float
    micro_batch: int | None
    fits: bool = True
    is_simulated: bool = True
    note: str = ""


class SizeEstimator:
    """Estimator of the sizes of a space's configurations on this machine.

    Args:
        space: The space.
        schema: Annotation types to extract.
        corpus: Its longest documents are the inputs; None if it cannot be read, so that windows are full.
        bounded: Names of backbones that are not simulated.
    """

    def __init__(self, space: SearchSpace, schema: Schema, corpus: Corpus | None, bounded: Collection[str]) -> None:
        self._space = space
        self._schema = schema
        self._bounded = bounded
        self._end = math.inf
        self._documents: Corpus | None = None
        self._documents_digest = ""
        if corpus is not None:
            self._documents = Corpus({split: _select_longest(corpus[split]) for split in ("train", "dev")})
            documents = [document for split in self._documents.splits.values() for document in split]
            self._documents_digest = compute_digest([json.dumps(asdict(document)) for document in documents])

    def limit_time(self, seconds: float = SIMULATION_SECONDS) -> SizeEstimator:
        """Return an estimator that starts no simulation after a time; later results are lower bounds.

        Args:
            seconds: The time.
        """
        limited = copy.copy(self)
        limited._end = time.monotonic() + seconds
        return limited

    def measure(self, config: TrialConfig, own: Resources) -> ConfigurationSize:
        """Return the size of a configuration in a resource class, from an earlier simulation where possible.

        Args:
            config: The configuration.
            own: The class of its trial.
        """
        config = config.model_copy(update={"sharded": config.sharded or own.sharded})
        hardware, workers = find_hardware(own), own.workers_per_trial
        entry = CacheFile("estimates", self._make_key(config, hardware, workers))
        size = _read_size(entry)
        if size is None and config.backbone.name not in self._bounded and time.monotonic() < self._end:
            size = self._simulate(config, hardware, workers)
            entry.write(asdict(size))
        return size or self._bound(config, hardware, workers)

    def _make_key(self, config: TrialConfig, hardware: Hardware, workers: int) -> str:
        content = config.model_dump(mode="json", exclude=IRRELEVANT)
        content["ema_decay"] = bool(config.ema_decay)
        content["finetuning"]["parameters"].pop("learning_rate", None)
        architecture = read_config(config.backbone, "backbone")
        view = config.view.model_dump(mode="json") if self._documents_digest else None
        schema = self._schema.model_dump(mode="json")
        parts = [content, architecture, schema, self._documents_digest, view, asdict(hardware), workers]
        return compute_digest([json.dumps(parts, sort_keys=True), *find_versions()])

    def _simulate(self, config: TrialConfig, hardware: Hardware, workers: int) -> ConfigurationSize:
        from clinie_core.training.memory_estimate import estimate_memory

        inputs = self._find_inputs(config, workers)
        found = estimate_memory(config, self._schema, processes=workers, hardware=hardware, inputs=inputs)
        return ConfigurationSize(
            found.parameters, found.trainable, found.memory_mb, found.micro_batch, found.fits, note=found.note
        )

    def _find_inputs(self, config: TrialConfig, workers: int) -> dict[str, LargestInput] | None:
        """Return the largest inputs in the longest documents.

        They are None, so that windows are full, if the corpus or the tokenizer cannot be read.
        """
        if self._documents is None:
            return None
        from clinie_core.training.synthetic_inputs import find_largest_inputs
        from clinie_core.training.training_data import TrainingData

        try:
            with disable_tokenizer_threads():
                data = TrainingData.encode(config, apply_view(self._documents, config.view), self._get_encodings())
        except (InputError, ImportError, OSError, ValueError):  # reported elsewhere
            return None
        inputs = find_largest_inputs(config, data, workers)
        return {name: replace(own, predictions=None) for name, own in inputs.items()}

    @cache  # noqa: B019  # an estimator lives as long as a plan is made
    def _get_encodings(self) -> ModelCache:
        from clinie_core.modeling.model_cache import ModelCache

        return ModelCache()

    def _bound(self, config: TrialConfig, hardware: Hardware, workers: int) -> ConfigurationSize:
        """Return the least memory: weights, and gradients and optimizer state if all of them are trained."""
        method = FINETUNING.load(config.finetuning.name).model_validate(config.finetuning.parameters)
        parameters = int(self._space.get_facts(config).parameters * config.layers_kept)
        size = (method.bytes_per_linear_weight or FROZEN_BYTES) if method.freezes_backbone else TRAINED_BYTES
        memory = parameters * size / MIB / (workers if config.sharded else 1)
        limit = hardware.memory_mb
        trainable = parameters if config.finetuning.name == "full" else None
        fits = limit is None or memory <= limit
        return ConfigurationSize(parameters, trainable, memory, config.micro_batch, fits, is_simulated=False)


def find_hardware(own: Resources) -> Hardware:
    """Return the hardware of a worker, with the memory that its class states or this machine has.

    Args:
        own: The resource class. The memory of its GPU is unknown if neither it nor this machine determines it.
    """
    has_gpu = False
    if has_gpu_driver() and (own.gpus_per_worker == "auto" or own.known_memory_gib is None):
        import torch

        has_gpu = torch.cuda.is_available()
    uses_gpu = bool(own.gpus_per_worker) if own.gpus_per_worker != "auto" else has_gpu or own.known_memory_gib
    memory = own.known_memory_gib and own.known_memory_gib * 2**30
    if uses_gpu:
        if memory is None and has_gpu:
            memory = torch.cuda.get_device_properties(0).total_memory
        return Hardware("cuda", memory and MEMORY_SHARE * own.gpu_share * memory / MIB)
    if memory is None:
        workers = max(1, int((os.cpu_count() or 1) / own.cpus_per_worker))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / workers
    return Hardware("cpu", MEMORY_SHARE * memory / MIB)


def _select_longest(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Return the longest documents, with about :data:`ENCODED_CHARACTERS` in total."""
    ordered = sorted(documents, key=lambda document: -len(document.text))
    ends = accumulate(len(document.text) for document in ordered)
    return tuple(document for document, end in zip(ordered, ends, strict=True) if end <= ENCODED_CHARACTERS) or tuple(
        ordered[:1]
    )


def _read_size(entry: CacheFile) -> ConfigurationSize | None:
    content = entry.read()
    with suppress(TypeError):
        return None if content is None else ConfigurationSize(**content)
    return None
