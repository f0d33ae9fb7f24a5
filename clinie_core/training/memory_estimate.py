"""Estimate of a configuration's memory: the training step of the trainer on simulated tensors.

The model, the optimizer and the batches are those of a real training, with the shapes of the largest inputs. No weights
are loaded and nothing is computed. See :mod:`clinie_core.training.simulation`.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.backbones.weights import initialize_model, load_config
from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.errors import InputError
from clinie_core.finetuning.peft_method import find_target_modules
from clinie_core.finetuning.quantization import is_quantized
from clinie_core.formulations import build_components
from clinie_core.heads import LanguageHead
from clinie_core.inference.prediction import (
    BATCH_TOKENS,
    CACHE_MEMORY_SHARE,
    CPU_BATCH_TOKENS,
    GENERATION_BATCH_TOKENS,
)
from clinie_core.modeling.backbone_copies import prepare_backbone
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import LanguageModel, build_model, load_finetuning
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.live_storage import LiveStorage
from clinie_core.training.simulation import simulate
from clinie_core.training.synthetic_inputs import TOKEN, LargestInput, assume_largest_inputs, build_synthetic_data
from clinie_core.training.trainer import Trainer, choose_micro_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Hardware", "MemoryEstimate", "MemoryMeter", "estimate_memory"]

MIB = 2**20
NEUTRAL = {"epochs": 1, "weight_decay": 0.0, "warmup_ratio": 0.0, "schedule": "linear", "patience": 0, "seed": 0}
"""Fields of a configuration that do not affect its memory, with the value that replaces them."""
GENERATED_STEPS = 2
"""Number of simulated steps of generation, at the beginning and at the end of an answer."""


@dataclass(frozen=True)
class Hardware:
    """Hardware of one process that trains.

    Args:
        device_type: ``cpu`` or ``cuda``.
        memory_mb: Memory in MiB that training may use; None if it is unknown.
    """

    device_type: str = "cpu"
    memory_mb: float | None = None


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
) -> MemoryEstimate:
    """Estimate the number of parameters and the memory of a configuration.

    Results are cached by the settings that affect memory.

    Args:
        config: The configuration. On a GPU, precision ``auto`` means bfloat16.
        schema: Annotation types to extract.
        processes: Number of processes that train a trial together.
        hardware: Hardware of each process; a CPU with unknown memory if omitted.

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
    largest = assume_largest_inputs(config, schema)
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
        with simulate(hardware.device_type):
            meter = MemoryMeter(config, schema, dict(inputs), processes, hardware)
            total, trainable = meter.count_parameters()
            peak = meter.measure(first, accumulates=first < share)
            if limit is None or peak <= limit or config.micro_batch is not None or first == 1:
                return MemoryEstimate(total, trainable, peak, first, limit is None or peak <= limit)
            low, low_peak = 1, meter.measure(1, accumulates=True)
            # Memory is convex in the micro-batch, so the line between two points is above it. Smaller micro-batches
            # accumulate gradients, which exist before a forward pass.
            slope = (peak + meter.measure_gradients() - low_peak) / (first - 1)
            middle = 1 + int((limit - low_peak) / slope) if low_peak < limit else 1
            if middle > 1:
                low, low_peak = middle, meter.measure(middle, accumulates=True)
            return MemoryEstimate(total, trainable, low_peak, low, low_peak <= limit)
    except InputError:
        raise
    except Exception as error:  # an operation that FakeTensors do not support
        note = f"{config.backbone.name} with {config.finetuning.name} cannot be simulated ({type(error).__name__})"
        return _count_weights(config, schema, processes, first, note)
    finally:
        gc.collect()


class MemoryMeter(Trainer):
    """Trainer that measures the peak memory of training steps and predictions with the largest inputs.

    Within :func:`~clinie_core.training.simulation.simulate` it estimates memory; otherwise it measures real tensors.

    Args:
        config: The configuration.
        schema: Annotation types to extract.
        inputs: The largest inputs of each component.
        processes: Number of processes that train together; one of them is measured.
        hardware: Hardware that is simulated. On a CPU, the pretrained weights count, too.
        cache: Provides the pretrained backbone; None for random weights.
        device: Device of real tensors; simulated ones need the CPU, which is the default.
    """

    def __init__(
        self,
        config: TrialConfig,
        schema: Schema,
        inputs: Mapping[str, LargestInput],
        processes: int = 1,
        hardware: Hardware | None = None,
        cache: ModelCache | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._inputs = inputs
        self._hardware = hardware or Hardware()
        used = cache or _RandomBackbones()
        data = build_synthetic_data(config, schema, inputs)
        whole = config.model_copy(update={"sharded": False, "batch_size": -(-config.batch_size // processes)})
        super().__init__(whole, data, used, DistributedContext(device=device or torch.device("cpu")))
        self.storage = LiveStorage()
        self._fill_optimizer()
        self.storage.track(self._list_held_tensors())
        if self._hardware.device_type == "cpu" and not config.sharded:
            self.storage.track(used.get_backbone(config).parameters())
        self._sharded_bytes = self._discount_other_shards(processes) if config.sharded and processes > 1 else 0
        self._unpacked_bytes = self._discount_quantized_weights()
        trained = [p for p in self._model.parameters() if p.requires_grad]
        # The buckets through which gradients are averaged are as large as the gradients.
        self._buckets = [torch.empty_like(p) for p in trained] if processes > 1 and not config.sharded else []
        self.storage.track(self._buckets)

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all and of trained parameters."""
        parameters = list(self._model.parameters())
        return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)

    def _discount_other_shards(self, processes: int) -> int:
        """Return the bytes that other processes hold of a sharded model, less those that this process gathers.

        A process gathers embeddings and heads, and two layers: one that computes and one in advance.
        """
        layers = find_layers(self._model.backbone)[1]
        sizes = [sum(p.numel() * p.element_size() for p in layer.parameters()) for layer in layers]
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        held = sum(t.numel() * t.element_size() for t in self._list_held_tensors())
        gathered = weights - sum(sizes) + sum(sorted(sizes)[-2:])
        return int(held * (1 - 1 / processes)) - gathered

    def measure_gradients(self) -> float:
        """Return the size of all gradients in MiB."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters() if p.requires_grad) / MIB

    def _discount_quantized_weights(self) -> int:
        """Count simulated weights that training quantizes to four bits with their actual size.

        Returns:
            Bytes of the largest of these weights in the dtype of the computation, to which its layer unpacks it.
        """
        size = self._method.bytes_per_linear_weight
        if size is None:
            return 0
        modules = (
            self._model.backbone.get_submodule(n) for n in find_target_modules(self._model.backbone, "all_linear")
        )
        bases: list[Any] = [getattr(module, "base_layer", module).weight for module in modules]
        weights: list[Tensor] = [w for w in bases if not w.requires_grad and not is_quantized(w)]
        self.storage.current -= int(sum(w.numel() * (w.element_size() - size) for w in weights))
        return max((w.numel() * w.element_size() for w in weights), default=0)

    def measure(self, micro_batch: int, *, accumulates: bool) -> float:
        """Return the peak memory in MiB of training and predicting with any component.

        Args:
            micro_batch: Windows per forward pass in training.
            accumulates: Whether a batch has several micro-batches, so that gradients exist before a forward pass.
        """
        training = max(self._measure_step(name, micro_batch, accumulates=accumulates) for name in self._inputs)
        prediction = max(self._measure_prediction(name) for name in self._inputs)
        return (max(training, prediction) + self._unpacked_bytes - max(0, self._sharded_bytes)) / MIB

    def _list_held_tensors(self) -> list[Tensor]:
        """Return the tensors that a process holds between steps."""
        states = [t for state in self._optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        averages = self._average.values if self._average is not None else []
        return [*self._model.parameters(), *self._model.buffers(), *states, *averages]

    def _fill_optimizer(self) -> None:
        """Create the optimizer's state, which otherwise the first step creates."""
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _measure_step(self, component: str, micro_batch: int, *, accumulates: bool) -> int:
        self.micro_batch = micro_batch
        self._model.train()
        with self.storage:
            if accumulates:
                for parameter in self._model.parameters():
                    if parameter.requires_grad:
                        parameter.grad = torch.zeros_like(parameter)
            self.storage.reset_peak()
            self._step(component, [self._inputs[component].training] * micro_batch)
        return self.storage.peak

    def _measure_prediction(self, component: str) -> int:
        largest, head = self._inputs[component], self._model.get_head(component)
        tokens = len(largest.prediction.input_ids)
        self._model.eval()
        if not isinstance(head, LanguageHead):
            size = CPU_BATCH_TOKENS if self._hardware.device_type == "cpu" else BATCH_TOKENS
            return self._predict(component, largest.prediction, max(1, size // tokens))
        budget, end = head.budget, head.eos_id
        rows = self._count_generated_rows(tokens, budget)
        head.set_budget(GENERATED_STEPS, end)
        beginning = self._predict(component, largest.prediction, rows)
        # The end of an answer differs from its beginning in the number of tokens in the key-value cache.
        longest = replace(largest.prediction, input_ids=(*largest.prediction.input_ids, *[TOKEN] * budget))
        ending = self._predict(component, longest, rows, after_prompt=True)
        head.set_budget(budget, end)
        return max(beginning, ending)

    def _count_generated_rows(self, tokens: int, budget: int) -> int:
        """Return the number of answers that are generated at once; see :class:`Predictor`."""
        assert isinstance(self._model, LanguageModel)
        rows = GENERATION_BATCH_TOKENS // tokens
        if self._hardware.memory_mb is not None:
            free = self._hardware.memory_mb * MIB - self.storage.current
            rows = min(rows, int(CACHE_MEMORY_SHARE * free / self._model.cache_bytes_per_token / (tokens + budget)))
        return max(1, rows)

    def _predict(self, component: str, example: Example, rows: int, *, after_prompt: bool = False) -> int:
        """Return the peak memory of a prediction; optionally only that after the first forward pass."""
        device = self._distributed.device
        with self.use_scored_weights(), self.storage, self._model.prepare_prediction(), torch.inference_mode():
            self.storage.reset_peak()
            hook = self._model.backbone.register_forward_hook(lambda *_: self.storage.reset_peak())
            if not after_prompt:
                hook.remove()
            try:
                left = self._components[component].generates
                batch = collate([example] * rows, self._pad_id, device, targets=False, component=component, left=left)
                self._model.predict(batch)
            finally:
                hook.remove()
        return self.storage.peak


class _RandomBackbones(ModelCache):
    """Source of one backbone with random weights, in the dtype of its configuration file."""

    def __init__(self) -> None:
        super().__init__(0)
        self._backbone: PreTrainedModel | None = None

    def get_backbone(
        self, config: TrialConfig, device: torch.device | None = None, frozen_dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        """See :meth:`ModelCache.get_backbone`."""
        if self._backbone is None:
            generates = any(formulation.generates for formulation in build_components(config).values())
            self._backbone = initialize_model(load_config(config.backbone), generates=generates)
        if not load_finetuning(config).freezes_backbone:
            return self._backbone
        return prepare_backbone(self._backbone, load_finetuning(config), device or torch.device("cpu"), frozen_dtype)


def _count_weights(config: TrialConfig, schema: Schema, processes: int, micro_batch: int, note: str) -> MemoryEstimate:
    """Estimate the memory of weights, gradients and optimizer state."""
    with torch.device("meta"):
        backbone = _RandomBackbones().get_backbone(config, torch.device("meta"))
        model = build_model(config, schema, backbone)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(p.numel() * p.element_size() for p in model.parameters()) + 12 * trainable
    return MemoryEstimate(total, trainable, held / (processes if config.sharded else 1) / MIB, micro_batch, True, note)
