"""Frozen weights have the dtype of the computation: neither training nor generation converts them again."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import Batch, collate
from clinie_core.encoding.batch_sampling import batch_by_length
from clinie_core.encoding.examples import Example
from clinie_core.heads import LanguageHead
from clinie_core.modeling.free_memory import measure_free_memory
from clinie_core.modeling.model import ExtractionModel, LanguageModel, build_model, load_finetuning, merge_backbone
from clinie_core.modeling.model_cache import load_backbone
from clinie_core.modeling.precision import Precision

WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "max_position_embeddings": 64, **WIDTHS},
    "llama": {"model_type": "llama", "max_position_embeddings": 64, "num_key_value_heads": 1, **WIDTHS},
}
ANSWER = 12
BFLOAT16 = Precision(torch.bfloat16)


def build(kind: str, method: str, precision: Precision = BFLOAT16, **parameters: Any) -> ExtractionModel:
    config = TrialConfig(
        backbone=BackboneSource(name=kind, scratch=SCRATCH[kind]),
        formulation=ComponentChoice(name="token_classification" if kind == "bert" else "generation"),
        finetuning=ComponentChoice(name=method, parameters={"learning_rate": 1e-3, **parameters}),
        epochs=1,
    )
    schema = Schema(concept_types=("Drug",))
    model = build_model(config, schema, load_backbone(config), precision=precision)
    for head in model.heads.values():
        if isinstance(head, LanguageHead):
            head.set_budget(ANSWER, 2)
    return model


def make_batch(*, left: bool = False) -> Batch:
    rows = [Example(tuple(range(5, 5 + n)), tuple(range(n)), (0,) * n) for n in (9, 7)]
    return collate(rows, 0, torch.device("cpu"), targets=not left, component="concepts", left=left, aligned=not left)


class CastCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the conversions of a model's weights to another dtype."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pointers = {parameter.data_ptr() for parameter in model.parameters()}
        self.casts = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.to, torch.ops.aten._to_copy) and result.dtype != args[0].dtype:
            self.casts += args[0].data_ptr() in self._pointers
        return result


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(("method", "parameters"), [("lora", {}), ("bottleneck", {}), ("full", {"frozen_layers": 1})])
def test_autograd_holds_no_copy_of_a_frozen_weight(kind: str, method: str, parameters: dict[str, Any]) -> None:
    model = build(kind, method, **parameters)
    frozen = {p.data_ptr(): p.detach().float() for p in model.parameters() if not p.requires_grad}
    copies = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in frozen and tensor.is_floating_point() and tensor.ndim == 2:
            for weight in frozen.values():
                for candidate in (tensor, tensor.T):
                    if candidate.shape == weight.shape and torch.allclose(candidate.float(), weight, rtol=0.01):
                        copies.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), model.autocast():
        model(make_batch()).backward()
    assert copies == []
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert gradients
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


@pytest.mark.parametrize("method", ["full", "lora", "prefix_tuning", "prompt_tuning"])
def test_generation_converts_no_weight_per_token(method: str) -> None:
    model = build("llama", method).eval()
    assert isinstance(model, LanguageModel)
    masters = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    caches: list[Any] = []
    layers = [module for module in model.modules() if type(module).__name__ == "LlamaAttention"]
    layers[0].register_forward_pre_hook(lambda m, a, k: caches.append(k.get("past_key_values")), with_kwargs=True)
    with model.prepare_prediction(), CastCounter(model) as counter, torch.inference_mode():
        answers = model.predict(make_batch(left=True))
        model.predict(make_batch(left=True))
    assert max(len(answer) for answer in answers) == ANSWER
    assert counter.casts == 0
    assert {cache.layers[0].keys.dtype for cache in caches} == {torch.bfloat16}
    after = model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in masters.items()
    )
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_the_cache_of_a_token_has_keys_and_values_in_the_dtype_of_the_computation() -> None:
    model = build("llama", "lora")
    assert isinstance(model, LanguageModel)
    assert model.cache_bytes_per_token == 2 * 2 * 1 * 16 * 2  # both, layers, heads, width, bytes
    single = build("llama", "lora", Precision())
    assert isinstance(single, LanguageModel)
    assert single.cache_bytes_per_token == 2 * model.cache_bytes_per_token


def test_a_generation_batch_leaves_room_for_the_answers() -> None:
    lengths = [100] * 8
    assert [len(b) for b in batch_by_length(lengths, 16_384)] == [8]
    assert [len(b) for b in batch_by_length(lengths, 16_384, generated=100, cached_tokens=600)] == [3, 3, 2]
    assert [len(b) for b in batch_by_length(lengths, 16_384, generated=100, cached_tokens=10)] == [1] * 8


def test_free_memory_of_the_cpu_is_less_than_its_memory() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < measure_free_memory(torch.device("cpu")) < total


def test_an_error_during_prediction_restores_the_trained_weights() -> None:
    model = build("llama", "lora")

    def interrupt() -> None:
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), model.prepare_prediction():
        interrupt()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_a_model_in_bfloat16_is_merged_in_float32() -> None:
    model = build("bert", "lora")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.constant_(parameter, 1e-5)  # far below the resolution of a bfloat16 weight
    settings = ComponentChoice(name="lora", parameters={"learning_rate": 1e-3})
    config = TrialConfig(
        backbone=BackboneSource(name="bert", scratch=SCRATCH["bert"]),
        formulation=ComponentChoice(name="token_classification"),
        finetuning=settings,
        epochs=1,
    )
    merged = merge_backbone(model, load_finetuning(config), "lora").state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    base = model.state_dict()[f"backbone.base_model.model.{name}".replace(".weight", ".base_layer.weight")]
    assert merged[name].dtype == torch.float32
    assert (merged[name] != base.float()).float().mean() > 0.9
