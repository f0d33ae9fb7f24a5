"""Measurement of the peak memory of training steps and predictions, with real or simulated tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.backbones.weights import initialize_model
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
from clinie_core.modeling.sharding import gather_weights, get_local_shard, measure_gathered_bytes
from clinie_core.training.hardware import Hardware
from clinie_core.training.layer_counts import load_shape
from clinie_core.training.live_storage import LiveStorage
from clinie_core.training.synthetic_inputs import TOKEN, LargestInput, build_synthetic_data
from clinie_core.training.trainer import Trainer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

__all__ = ["BETWEEN", "MIB", "MemoryMeter", "Peaks", "RandomBackbones"]

Peaks = dict[Hashable, int]
"""Peak memory in bytes of each segment of time; see :class:`LiveStorage`."""
MIB = 2**20
FIRST, BETWEEN, LAST = "first", "between", "last"
"""Places of a layer in the backbone."""
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
        layers: Number of layers of a random backbone; None for that of its configuration file.
        device: Device of real tensors; simulated ones need the CPU, which is the default.
        mesh: The simulated processes of a sharded model; see
            :func:`~clinie_core.training.simulation.simulate_processes`.
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
        layers: int | None = None,
        mesh: DeviceMesh | None = None,
    ) -> None:
        self._inputs = inputs
        self._hardware = hardware or Hardware()
        self._backbones, self._mesh = cache or RandomBackbones(layers), mesh
        data = build_synthetic_data(config, schema, inputs)
        device = device or torch.device("cpu")
        if mesh is not None:
            context = DistributedContext(mesh.get_local_rank(), mesh.size(), device)
        else:
            context = DistributedContext(device=device)
            config = config.model_copy(update={"batch_size": -(-config.batch_size // processes)})
        super().__init__(config, data, self._backbones, context)
        self.storage = LiveStorage()
        self._fill_optimizer()
        self.storage.track(self._list_held_tensors())
        if self._hardware.device_type == "cpu" and mesh is None:
            self.storage.track(self._backbones.get_backbone(config).parameters())
        self.unpacked_bytes = self._discount_quantized_weights()
        """Memory of the largest quantized weight in the dtype of the computation, to which its layer unpacks it."""
        trained = [p for p in self._model.parameters() if p.requires_grad]
        # The buckets through which gradients are averaged are as large as the gradients.
        self._buckets = [torch.empty_like(p) for p in trained] if processes > 1 and mesh is None else []
        self.storage.track(self._buckets)

    def _build_mesh(self) -> DeviceMesh:
        assert self._mesh is not None, "a sharded model is measured with simulated processes"
        return self._mesh

    def _load_backbone(self) -> PreTrainedModel:
        if isinstance(self._backbones, RandomBackbones):
            return self._backbones.get_pretrained(self.config)
        return super()._load_backbone()

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the model's components."""
        return tuple(self._inputs)

    @property
    def gradient_bytes(self) -> int:
        """Size of all gradients of this process."""
        trained = [get_local_shard(p.detach()) for p in self._model.parameters() if p.requires_grad]
        return sum(p.numel() * p.element_size() for p in trained)

    @property
    def gathered_bytes(self) -> int:
        """Size of all weights of a sharded model in the dtype of the computation; 0 if it is not sharded."""
        return measure_gathered_bytes(self._model, self._precision) if self._mesh is not None else 0

    @property
    def cache_bytes_per_token(self) -> int:
        """Size of one token's keys and values in all layers; 0 if the model does not generate."""
        return self._model.cache_bytes_per_token if isinstance(self._model, LanguageModel) else 0

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all and of trained parameters."""
        parameters = list(self._model.parameters())
        return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)

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

    def measure_training(self, component: str, micro_batch: int, *, accumulates: bool) -> Peaks:
        """Return the peaks of an optimizer step.

        Args:
            component: Name of the component.
            micro_batch: Windows per forward pass.
            accumulates: Whether a batch has several micro-batches, so that gradients exist before a forward pass.
        """
        self.micro_batch = micro_batch
        self._model.train()
        mark_optimizer = self._optimizer.register_step_pre_hook(lambda *_: self.storage.begin_segment("optimizer"))
        with self.storage, self._mark_layers():
            if accumulates:
                for parameter in self._model.parameters():
                    if parameter.requires_grad:
                        parameter.grad = torch.zeros_like(parameter)
            self.storage.reset_peak()
            self._step(component, [self._inputs[component].training] * micro_batch * self._distributed.size)
        mark_optimizer.remove()
        return self.storage.peaks

    @property
    def limit_bytes(self) -> float:
        """Memory of the hardware; infinite if it is unknown."""
        return inf if self._hardware.memory_mb is None else self._hardware.memory_mb * MIB

    def count_rows(self, component: str, held_bytes: float, cache_bytes_per_token: float) -> int:
        """Return the number of rows of a prediction's batch, as :class:`Predictor` chooses it; 0 without predictions.

        Args:
            component: Name of the component.
            held_bytes: Memory that is in use before the prediction.
            cache_bytes_per_token: Size of one token's keys and values.
        """
        largest, head = self._inputs[component], self._model.get_head(component)
        if largest.predictions == 0:
            return 0
        tokens = len(largest.prediction.input_ids)
        if isinstance(head, LanguageHead):
            rows = GENERATION_BATCH_TOKENS // tokens
            if self._hardware.memory_mb is not None:
                free = self.limit_bytes - held_bytes
                rows = min(rows, int(CACHE_MEMORY_SHARE * free / cache_bytes_per_token / (tokens + head.budget)))
        else:
            rows = (CPU_BATCH_TOKENS if self._hardware.device_type == "cpu" else BATCH_TOKENS) // tokens
        return max(1, rows if largest.predictions is None else min(rows, largest.predictions))

    def measure_prediction(self, component: str, rows: int, *, gathers: bool = False) -> Peaks:
        """Return the peaks of a prediction with the longest input.

        Args:
            component: Name of the component.
            rows: Number of rows, each with the longest input.
            gathers: Whether to gather all weights of a sharded model before.
        """
        self._model.eval()
        with self.use_scored_weights(), self.storage:
            self.storage.reset_peak()
            with gather_weights(self._model) if gathers else nullcontext():
                gathering = {("gathering", name): peak for name, peak in self.storage.peaks.items()}
                return gathering | self._measure_outputs(component, rows)

    def _measure_outputs(self, component: str, rows: int) -> Peaks:
        prediction, head = self._inputs[component].prediction, self._model.get_head(component)
        if not isinstance(head, LanguageHead):
            return self._predict(component, prediction, rows)
        budget, end = head.budget, head.eos_id
        head.set_budget(GENERATED_STEPS, end)
        beginning = self._predict(component, prediction, rows)
        # The end of an answer differs from its beginning in the number of tokens in the key-value cache.
        longest = replace(prediction, input_ids=(*prediction.input_ids, *[TOKEN] * budget))
        ending = self._predict(component, longest, rows, after_prompt=True)
        head.set_budget(budget, end)
        return {("beginning", name): peak for name, peak in beginning.items()} | ending

    def _predict(self, component: str, example: Example, rows: int, *, after_prompt: bool = False) -> Peaks:
        """Return the peaks of a prediction; optionally only those after the first forward pass."""
        device, generates = self._distributed.device, self._components[component].generates
        mode = torch.no_grad() if self._mesh is not None else torch.inference_mode()
        with self._model.prepare_prediction(), mode, self._mark_layers():
            self.storage.reset_peak()
            hook = self._model.backbone.register_forward_hook(lambda *_: self.storage.reset_peak())
            if not after_prompt:
                hook.remove()
            try:
                repeated = [example] * rows
                batch = collate(repeated, self._pad_id, device, targets=False, component=component, left=generates)
                self._model.predict(batch)
            finally:
                hook.remove()
        return self.storage.peaks

    @contextmanager
    def _mark_layers(self) -> Iterator[None]:
        """Begin segments of time at the layers' forward and backward passes: the first, the last and those between.

        A segment's name includes the number of the pass, because memory differs between the steps of generation, and
        between a forward pass and its recomputation.
        """
        layers = find_layers(self._model.backbone)[1]
        passes: Counter[str] = Counter()
        hooks: list[RemovableHandle] = []

        def begin(kind: str, place: str) -> None:
            passes[kind + place] += 1
            self.storage.begin_segment((kind, place, passes[kind + place] if place != BETWEEN else 0))

        def mark_input(module: nn.Module, args: tuple[Any, ...], place: str) -> None:
            begin("forward", place)

        def mark_output(module: nn.Module, args: tuple[Any, ...], output: Any, place: str) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if place == LAST:
                begin("after", place)
            if hidden.requires_grad:
                hidden.register_hook(lambda gradient: begin("backward", place))

        for number, layer in enumerate(layers):
            place = FIRST if number == 0 else LAST if number == len(layers) - 1 else BETWEEN
            hooks.append(layer.register_forward_pre_hook(partial(mark_input, place=place)))
            hooks.append(layer.register_forward_hook(partial(mark_output, place=place)))
        hooks.append(self._model.register_forward_hook(lambda *_: begin("loss", LAST)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class RandomBackbones(ModelCache):
    """Source of one backbone with random weights, in the dtype of its configuration file.

    Args:
        layers: Number of its layers; None for that of its configuration file.
    """

    def __init__(self, layers: int | None = None) -> None:
        super().__init__(0)
        self._layers = layers
        self._backbone: PreTrainedModel | None = None

    def get_backbone(
        self, config: TrialConfig, device: torch.device | None = None, frozen_dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        """See :meth:`ModelCache.get_backbone`."""
        pretrained, method = self.get_pretrained(config), load_finetuning(config)
        if not method.freezes_backbone:
            return pretrained
        return prepare_backbone(pretrained, method, device or torch.device("cpu"), frozen_dtype)

    def get_pretrained(self, config: TrialConfig) -> PreTrainedModel:
        """Return the backbone as it would be loaded from its files."""
        if self._backbone is None:
            generates = any(formulation.generates for formulation in build_components(config).values())
            self._backbone = initialize_model(load_shape(config, self._layers), generates=generates)
        return self._backbone
