"""Choice of a trial's micro-batch from a simulated training step, before the trial uses any memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import load_finetuning
from clinie_core.modeling.precision import detect_precision
from clinie_core.training.hardware import Hardware
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.synthetic_inputs import LargestInput, find_largest_inputs
from clinie_core.training.training_data import TrainingData

__all__ = ["MemoryUse", "choose_memory_use"]


@dataclass(frozen=True)
class MemoryUse:
    """Settings of a training that change its memory, and its results by rounding only.

    Args:
        micro_batch: Windows per forward pass in one process.
        recomputation: Whether to recompute activations even if the configuration does not say so.
    """

    micro_batch: int
    recomputation: bool = False


def choose_memory_use(
    config: TrialConfig,
    data: TrainingData,
    distributed: DistributedContext,
    hardware: Hardware,
    largest: MemoryUse,
) -> MemoryUse:
    """Return the settings with which a training is expected to fit into memory; a collective operation.

    The inputs are as long as the longest ones of the data. Activations are recomputed only if a single window does not
    fit otherwise. If that does not fit either, training may still succeed, because an estimate is not exact.

    Args:
        config: The configuration. A micro-batch that it states is not changed.
        data: The encoded data.
        distributed: The processes that train together.
        hardware: Hardware of this process. The settings are those of ``largest`` if its memory is unknown.
        largest: Settings with the largest micro-batch to consider.
    """
    limits = distributed.all_gather(hardware.memory_mb)
    known = [limit for limit in limits if limit is not None]
    if not known or config.micro_batch is not None:
        return largest
    chosen = None
    if distributed.rank == 0 or config.sharded:  # the simulation of a sharded model is a collective operation
        inputs = find_largest_inputs(config, data, distributed.size)
        weakest = Hardware(hardware.device_type, min(known))
        dtype = str(detect_precision(config.precision, distributed.device).dtype).removeprefix("torch.")
        exact = config.model_copy(update={"precision": dtype})
        chosen = _choose(exact, data.schema, inputs, distributed.size, weakest, largest)
    found: MemoryUse = distributed.broadcast_from_rank_zero(chosen)
    return found


def _choose(
    config: TrialConfig,
    schema: Schema,
    inputs: Mapping[str, LargestInput],
    processes: int,
    hardware: Hardware,
    largest: MemoryUse,
) -> MemoryUse:
    can_recompute = load_finetuning(config).supports_recomputation
    for recomputation in sorted({largest.recomputation, can_recompute or largest.recomputation}):
        recomputed = config.model_copy(
            update={"gradient_checkpointing": config.gradient_checkpointing or recomputation}
        )
        try:
            estimate = estimate_memory(recomputed, schema, processes=processes, hardware=hardware, inputs=inputs)
        except InputError:  # the trainer reports it, or a backbone does not support recomputation
            return largest if recomputation == largest.recomputation else MemoryUse(1, largest.recomputation)
        if estimate.note:
            return largest
        if estimate.fits:
            return MemoryUse(min(largest.micro_batch, estimate.micro_batch), recomputation)
    return MemoryUse(1, recomputation)
