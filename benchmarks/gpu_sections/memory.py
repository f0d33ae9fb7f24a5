"""Memory: peak against the estimate, training after a shortage, and memory that trials leave."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import OutOfMemory
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.hardware import MEMORY_SHARE, Hardware
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.memory_meter import MemoryMeter
from clinie_core.training.peak_estimator import PeakEstimator
from clinie_core.training.synthetic_inputs import assume_largest_inputs
from clinie_core.training.train import train
from gpu_sections.results import Figure
from gpu_sections.setting import Setting, generate_corpus

__all__ = ["measure_estimate", "measure_ladder", "measure_leftovers"]

MIB = 2**20
TOLERANCE = 16.0
"""Largest increase in MiB that does not count as a leak, such as the workspace of another kernel."""
SCHEMA = Schema(concept_types=("a", "b", "c"))


def measure_estimate(setting: Setting) -> list[Figure]:
    """Compare the peak memory of a training step and a prediction with the estimate that `clinie plan` prints."""
    configs = {
        "encoder, full": setting.configure_encoder("full"),
        "encoder, lora": setting.configure_encoder("lora"),
        "encoder, full, recomputed": setting.configure_encoder("full", gradient_checkpointing=True),
        "decoder, lora": setting.configure_decoder("lora", batch_size=8),
    }
    if setting.quick:
        configs = {name: configs[name] for name in ("encoder, full", "decoder, lora")}
    figures = []
    for name, config in configs.items():
        estimate = estimate_memory(config, SCHEMA, hardware=Hardware(setting.device.type))
        peak = _measure_peak(setting, config)
        figures += [
            Figure(f"{name}: measured peak", peak, "MiB"),
            Figure(f"{name}: estimate", estimate.memory_mb, "MiB"),
            Figure(f"{name}: estimate / measured", estimate.memory_mb / peak),
        ]
    return figures


def _measure_peak(setting: Setting, config: TrialConfig) -> float:
    """Return the peak of the device's allocator in MiB; on a CPU, that of the tensors."""
    inputs = assume_largest_inputs(config, SCHEMA)
    meter = MemoryMeter(config, SCHEMA, inputs, hardware=Hardware(setting.device.type), device=setting.device)
    setting.distributed.release_memory()
    setting.distributed.reset_peak_memory()
    tensors = PeakEstimator.of(meter).measure(config.batch_size, accumulates=False)
    peak = tensors if setting.fake else torch.cuda.max_memory_allocated(setting.device) / MIB
    del meter
    gc.collect()
    return peak


def measure_ladder(setting: Setting) -> list[Figure]:
    """Train a batch that does not fit, and then smaller micro-batches until one fits."""
    size = "small" if setting.fake else "base"
    batch = 32 if setting.fake else 64
    config = setting.configure_encoder(size=size, batch_size=batch, epochs=1)
    hardware = Hardware(setting.device.type)
    needs = {
        micro_batch: estimate_memory(
            config.model_copy(update={"micro_batch": micro_batch}), SCHEMA, hardware=hardware
        ).memory_mb
        for micro_batch in (batch, 8)
    }
    limit = (needs[batch] + needs[8]) / 2
    corpus, cache = generate_corpus(batch), ModelCache()
    train(config.model_copy(update={"train_documents": 1}), corpus, cache=cache, distributed=setting.distributed)
    setting.distributed.release_memory()
    short: list[int] = []
    micro_batch, fitting = config.batch_size, 0
    run = partial(train, config, corpus, cache=cache, distributed=setting.distributed)
    unlimited = Hardware(setting.device.type)  # otherwise the micro-batch is chosen so that it fits
    with _limit_memory(setting, limit):
        while micro_batch and not fitting:
            try:
                run(micro_batch=micro_batch, hardware=unlimited)
                fitting = micro_batch
            except OutOfMemory:
                short.append(micro_batch)
                micro_batch //= 2
        chosen = run(hardware=Hardware(setting.device.type, MEMORY_SHARE * limit))
    if not short or not fitting:
        raise RuntimeError(f"short of memory with {short}, fits with {fitting or 'none'}, limit {limit:.0f} MiB")
    return [
        Figure("memory limit", limit, "MiB"),
        Figure("micro-batches that raised OutOfMemory", ", ".join(map(str, short))),
        Figure("micro-batch that fitted", fitting),
        Figure("micro-batch chosen by simulation, which fitted", chosen.memory_use.micro_batch),
    ]


@contextmanager
def _limit_memory(setting: Setting, limit: float) -> Iterator[None]:
    """Return a context in which training may use ``limit`` MiB of the GPU, or of further address space on a CPU."""
    if setting.fake:
        # oneDNN reports a shortage of memory by an error without a cause.
        torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
        before = resource.getrlimit(resource.RLIMIT_AS)
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + int(limit * MIB), before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        return
    total = torch.cuda.get_device_properties(setting.device).total_memory
    torch.cuda.set_per_process_memory_fraction(limit * MIB / total, setting.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)


def measure_leftovers(setting: Setting) -> list[Figure]:
    """Train several trials with one model cache, and measure the memory in use after each."""
    methods = ["full", "lora", "head_only"] * (1 if setting.quick else 2)
    corpus, cache = generate_corpus(8), ModelCache()
    held: list[float] = []
    for method in ["full", "lora", *methods]:  # the first two load kernels, the tokenizer and the backbone
        config = setting.configure_encoder(method, epochs=1, seed=1)
        train(config, corpus, cache=cache, distributed=setting.distributed)
        cache.release_device()
        setting.distributed.release_memory()
        held.append(_measure_held(setting))
    baseline, later = held[1], held[2:]
    return [
        Figure("baseline after the first trials", baseline, "MiB"),
        Figure("trials after that", len(later)),
        Figure("largest increase over the baseline", max(later) - baseline, "MiB"),
        Figure("returns to the baseline", "yes" if max(later) - baseline < TOLERANCE else "no"),
    ]


def _measure_held(setting: Setting) -> float:
    """Return the allocated memory of the GPU in MiB, or the resident memory of the process on a CPU."""
    if not setting.fake:
        return torch.cuda.memory_allocated(setting.device) / MIB
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MIB
