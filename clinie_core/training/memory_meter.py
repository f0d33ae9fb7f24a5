"""Measurement of the peak memory of training steps and predictions, with real or simulated tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.backbones.weights import initialize_model, load_config
from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
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
from clinie_core.modeling.model import LanguageModel, load_finetuning
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.hardware import Hardware
from clinie_core.training.live_storage import LiveStorage
from clinie_core.training.synthetic_inputs import TOKEN, LargestInput, build_synthetic_data
from clinie_core.training.trainer import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["MIB", "MemoryMeter", "RandomBackbones"]

MIB = 2**20
GENERATED_STEPS = 2
"""Number of simulated steps of generation, at the beginning and at the end of an answer."""


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
        used = cache or RandomBackbones()
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
        tokens, limit = len(largest.prediction.input_ids), largest.predictions
        if limit == 0:
            return 0
        self._model.eval()
        if not isinstance(head, LanguageHead):
            size = CPU_BATCH_TOKENS if self._hardware.device_type == "cpu" else BATCH_TOKENS
            return self._predict(component, largest.prediction, _limit(size // tokens, limit))
        budget, end = head.budget, head.eos_id
        rows = _limit(self._count_generated_rows(tokens, budget), limit)
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
        return rows

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


def _limit(rows: int, limit: int | None) -> int:
    """Return a number of rows between 1 and a limit."""
    return max(1, rows if limit is None else min(rows, limit))


class RandomBackbones(ModelCache):
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
