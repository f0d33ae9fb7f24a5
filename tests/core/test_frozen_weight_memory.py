"""Memory of a training step with LoRA on a model of eight billion parameters, from tensors without storage."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.modeling.model import ExtractionModel, build_model
from clinie_core.modeling.precision import Precision

TOKENS, ANSWER = 512, 64


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest total size in bytes of the memory of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._total = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._add, result)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self._total += storage.nbytes()
            self.peak = max(self.peak, self._total)
            weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, key: int) -> None:
        self._total -= self._sizes.pop(key)


def use_fake_weights(model: nn.Module) -> None:
    """Replace weights on the meta device by fake tensors on the CPU."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def build_eight_billion() -> ExtractionModel:
    from transformers import AutoModelForCausalLM, LlamaConfig

    widths = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    llama = LlamaConfig(vocab_size=128_256, num_attention_heads=32, num_key_value_heads=8, **widths)
    config = TrialConfig(
        backbone=BackboneSource(name="llama", folder="llama"),
        formulation=ComponentChoice(name="generation"),
        finetuning=ComponentChoice(name="lora", parameters={"learning_rate": 1e-3, "rank": 16}),
        epochs=1,
    )
    with torch.device("meta"):
        backbone = AutoModelForCausalLM.from_config(llama, dtype=torch.bfloat16)
        return build_model(config, Schema(concept_types=("Drug",)), backbone, precision=Precision(torch.bfloat16))


@pytest.mark.integration
def test_one_row_of_lora_on_eight_billion_parameters_needs_about_twenty_gigabytes() -> None:
    model = build_eight_billion().train()
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    positions = tuple(range(TOKENS - ANSWER - 1, TOKENS - 1))
    row = Example(tuple(range(TOKENS)), positions, (5,) * ANSWER)
    with FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory:
        use_fake_weights(model)
        batch = collate([row], 0, torch.device("cpu"), targets=True, component="concepts", aligned=True)
        with model.autocast():
            loss = model(batch)
        loss.backward()
    assert frozen == pytest.approx(16.1e9, rel=0.01)
    assert 18e9 < memory.peak < 20.7e9  # with frozen weights of float32 and autocast: 51.1e9
