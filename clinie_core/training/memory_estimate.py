"""Estimate of a configuration's memory: the training step of the trainer on simulated tensors.

The model, the optimizer and the batches are those of a real training, with the shapes of the largest inputs. No weights
are loaded and nothing is computed. See :mod:`clinie_core.training.simulation`.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import build_model
from clinie_core.training.hardware import Hardware
from clinie_core.training.layer_counts import SHALLOW, count_identical_layers
from clinie_core.training.memory_meter import MIB, MemoryMeter, RandomBackbones
from clinie_core.training.peak_estimator import PeakEstimator
from clinie_core.training.simulation import simulate, simulate_processes
from clinie_core.training.synthetic_inputs import LargestInput, assume_largest_inputs
from clinie_core.training.trainer import choose_micro_batch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["MemoryEstimate", "estimate_memory"]

NEUTRAL = {"epochs": 1, "weight_decay": 0.0, "warmup_ratio": 0.0, "schedule": "linear", "patience": 0, "seed": 0}
"""Fields of a configuration that do not affect its memory, with the value that replaces them."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Size of a configuration.

    Args:
        parameters: Number of parameters.
        trainable: Number of parameters that training changes.
        memory_mb: Peak memory of the tensors of each process in MiB.
        micro_batch: Windows per forward pass: the configuration's, else the largest number that fits into memory.
        fits: Whether the peak fits into the hardware's memory; True if that is unknown.
        note: Why the training step cannot be simulated; ``memory_mb`` is then the size of weights, gradients and
            optimizer state only.
    """

    parameters: int
    trainable: int
    memory_mb: float
    micro_batch: int
    fits: bool = True
    note: str = ""


def estimate_memory(
    config: TrialConfig,
    schema: Schema,
    *,
    processes: int = 1,
    hardware: Hardware | None = None,
    inputs: Mapping[str, LargestInput] | None = None,
) -> MemoryEstimate:
    """Estimate the number of parameters and the memory of a configuration.

    Results are cached by the settings that affect memory. A collective operation for a sharded model, if this process
    trains together with others.

    Args:
        config: The configuration. On a GPU, precision ``auto`` means bfloat16.
        schema: Annotation types to extract.
        processes: Number of processes that train a trial together.
        hardware: Hardware of each process; a CPU with unknown memory if omitted.
        inputs: The largest inputs of each component; inputs that fill the window if omitted.

    Raises:
        InputError: If the configuration is invalid for its backbone.
    """
    hardware = hardware or Hardware()
    changes: dict[str, Any] = dict(NEUTRAL, sharded=config.sharded and processes > 1)
    if config.precision == "auto" and hardware.device_type == "cuda":
        changes["precision"] = "bfloat16"
    rates = {"learning_rate": 1e-4} if "learning_rate" in config.finetuning.parameters else {}
    method = ComponentChoice(name=config.finetuning.name, parameters=config.finetuning.parameters | rates)
    reduced = config.model_copy(update=changes | {"finetuning": method, "ema_decay": 0.9 if config.ema_decay else 0.0})
    largest = assume_largest_inputs(config, schema) if inputs is None else inputs
    key = reduced.model_dump_json(), schema.model_dump_json()
    return _estimate(*key, processes, hardware, tuple(sorted(largest.items())))


@lru_cache(maxsize=256)
def _estimate(
    config_json: str,
    schema_json: str,
    processes: int,
    hardware: Hardware,
    inputs: tuple[tuple[str, LargestInput], ...],
) -> MemoryEstimate:
    config, schema = TrialConfig.model_validate_json(config_json), Schema.model_validate_json(schema_json)
    share = choose_micro_batch(config.model_copy(update={"micro_batch": None}), DistributedContext(size=processes))
    first = choose_micro_batch(config, DistributedContext(size=processes))
    limit = hardware.memory_mb
    try:
        with ExitStack() as stack:
            mesh = stack.enter_context(simulate_processes(processes)) if config.sharded else None
            stack.enter_context(simulate(hardware.device_type))
            estimator = _build_estimator(config, schema, dict(inputs), processes, hardware, mesh)
            total, trainable = estimator.count_parameters()
            peak = estimator.measure(first, accumulates=first < share)
            if limit is None or peak <= limit or config.micro_batch is not None or first == 1:
                return MemoryEstimate(total, trainable, peak, first, limit is None or peak <= limit)
            low, low_peak = 1, estimator.measure(1, accumulates=True)
            # Memory is convex in the micro-batch, so the line between two points is above it. Smaller micro-batches
            # accumulate gradients, which exist before a forward pass.
            slope = (peak + estimator.measure_gradients() - low_peak) / (first - 1)
            middle = 1 + int((limit - low_peak) / slope) if low_peak < limit else 1
            if middle > 1:
                low, low_peak = middle, estimator.measure(middle, accumulates=True)
            return MemoryEstimate(total, trainable, low_peak, low, low_peak <= limit)
    except InputError:
        raise
    except Exception as error:  # an operation that FakeTensors do not support
        note = f"{config.backbone.name} with {config.finetuning.name} cannot be simulated ({type(error).__name__})"
        return _count_weights(config, schema, processes, first, note)
    finally:
        gc.collect()


def _build_estimator(
    config: TrialConfig,
    schema: Schema,
    inputs: Mapping[str, LargestInput],
    processes: int,
    hardware: Hardware,
    mesh: DeviceMesh | None,
) -> PeakEstimator:
    """Return the estimator of a backbone; two shallow ones represent a deep backbone of identical layers."""
    layers = count_identical_layers(config)
    if layers is None:
        return PeakEstimator.of(MemoryMeter(config, schema, inputs, processes, hardware, mesh=mesh))
    meters = {n: MemoryMeter(config, schema, inputs, processes, hardware, layers=n, mesh=mesh) for n in SHALLOW}
    return PeakEstimator(meters, layers)


def _count_weights(config: TrialConfig, schema: Schema, processes: int, micro_batch: int, note: str) -> MemoryEstimate:
    """Estimate the memory of weights, gradients and optimizer state."""
    with torch.device("meta"):
        backbone = RandomBackbones().get_backbone(config, torch.device("meta"))
        model = build_model(config, schema, backbone)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(p.numel() * p.element_size() for p in model.parameters()) + 12 * trainable
    return MemoryEstimate(total, trainable, held / (processes if config.sharded else 1) / MIB, micro_batch, True, note)
