"""The memory estimate runs the training step on simulated tensors; it agrees with the memory of real tensors."""

from __future__ import annotations

from typing import Any

import pytest

from clinie_core.backbones import weights
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.training.hardware import Hardware
from clinie_core.training.layer_counts import SHALLOW, count_identical_layers
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.memory_meter import MemoryMeter
from clinie_core.training.peak_estimator import PeakEstimator
from clinie_core.training.simulation import simulate
from clinie_core.training.synthetic_inputs import assume_largest_inputs

SCHEMA = Schema(concept_types=("a", "b", "c"))
COMMON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
BACKBONES: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, **COMMON},
    "decoder": {"model_type": "llama", "max_position_embeddings": 2048, "num_key_value_heads": 2, **COMMON},
}


def make_config(backbone: str, formulation: str, method: str, **changes: Any) -> TrialConfig:
    parameters: dict[str, Any] = {"learning_rate": 1e-3} | ({"rank": 4} if "lora" in method else {})
    values: dict[str, Any] = {
        "backbone": BackboneSource(name=backbone, scratch=BACKBONES[backbone]),
        "formulation": ComponentChoice(name=formulation),
        "finetuning": ComponentChoice(name=method, parameters=parameters),
        "epochs": 1,
        "batch_size": 8,
        "window_tokens": 128,
        "precision": "float32",
    }
    return TrialConfig(**(values | changes))


CASES = {
    "encoder-full": make_config("encoder", "token_classification", "full"),
    "encoder-lora-bfloat16": make_config("encoder", "token_classification", "lora", precision="bfloat16"),
    "spans": make_config("encoder", "span_pointer", "full"),
    "generation": make_config("decoder", "generation", "lora", window_tokens=64),
    "gradient-checkpointing": make_config("encoder", "token_classification", "full", gradient_checkpointing=True),
    "weight-average": make_config("encoder", "token_classification", "full", ema_decay=0.9, micro_batch=2),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_estimate_is_within_a_tenth_of_the_memory_of_real_tensors(name: str) -> None:
    config = CASES[name]
    inputs = assume_largest_inputs(config, SCHEMA)
    micro_batch = config.micro_batch or config.batch_size
    estimator = PeakEstimator.of(MemoryMeter(config, SCHEMA, inputs))
    real = estimator.measure(micro_batch, accumulates=config.micro_batch is not None)
    estimate = estimate_memory(config, SCHEMA)
    assert estimate.note == ""
    assert estimate.memory_mb == pytest.approx(real, rel=0.1)


DEEP = {
    "one-row": make_config("encoder", "token_classification", "full", batch_size=1),
    **{name: CASES[name] for name in ("encoder-lora-bfloat16", "generation", "gradient-checkpointing")},
    "weight-average": CASES["weight-average"],
}


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(DEEP))
def test_two_shallow_backbones_give_the_memory_of_a_deep_one(name: str) -> None:
    backbone = DEEP[name].backbone
    deep = BackboneSource(name=backbone.name, scratch={**(backbone.scratch or {}), "num_hidden_layers": 8})
    config = DEEP[name].model_copy(update={"backbone": deep})
    layers, inputs = count_identical_layers(config), assume_largest_inputs(config, SCHEMA)
    assert layers == 8
    micro_batch, accumulates = config.micro_batch or config.batch_size, config.micro_batch is not None
    with simulate():
        whole = PeakEstimator.of(MemoryMeter(config, SCHEMA, inputs))
        shallow = PeakEstimator({n: MemoryMeter(config, SCHEMA, inputs, layers=n) for n in SHALLOW}, layers)
        measured, extrapolated = (e.measure(micro_batch, accumulates=accumulates) for e in (whole, shallow))
    assert extrapolated == pytest.approx(measured, rel=1e-6)
    assert shallow.count_parameters() == whole.count_parameters()
    assert shallow.measure_gradients() == pytest.approx(whole.measure_gradients())


@pytest.mark.parametrize(
    "shape",
    [
        {"model_type": "albert", "embedding_size": 32, **COMMON, "num_hidden_layers": 8},
        {"model_type": "gemma2", "num_key_value_heads": 2, "head_dim": 16, **COMMON, "num_hidden_layers": 8},
        {"model_type": "bert", **COMMON},
    ],
)
def test_backbones_with_shared_different_or_few_layers_are_simulated_as_a_whole(shape: dict[str, Any]) -> None:
    changed = BackboneSource(name="other", scratch=shape)
    assert count_identical_layers(CASES["encoder-full"].model_copy(update={"backbone": changed})) is None


LARGE: dict[str, dict[str, Any]] = {
    "bert-large": {
        **{"model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"intermediate_size": 4096, "vocab_size": 30522},
    },
}


@pytest.mark.integration
def test_full_fine_tuning_of_bert_large_needs_eleven_gigabytes_on_a_gpu() -> None:
    config = make_config("encoder", "token_classification", "full", batch_size=16, window_tokens=384, precision="auto")
    large = config.model_copy(update={"backbone": BackboneSource(name="bert-large", scratch=LARGE["bert-large"])})
    found = estimate_memory(large, SCHEMA, hardware=Hardware("cuda"))
    assert found.memory_mb * 2**20 / 1e9 == pytest.approx(11.5, rel=0.05)


@pytest.mark.integration
def test_the_micro_batch_is_the_largest_that_fits() -> None:
    config = CASES["encoder-full"]
    whole, single = (
        estimate_memory(config.model_copy(update={"micro_batch": size}), SCHEMA).memory_mb for size in (8, 1)
    )
    limit = (whole + single) / 2
    chosen = estimate_memory(config, SCHEMA, hardware=Hardware("cpu", limit))
    assert 1 < chosen.micro_batch < 8
    assert chosen.fits
    assert chosen.memory_mb <= limit
    short = estimate_memory(config, SCHEMA, hardware=Hardware("cpu", single / 2))
    assert (short.micro_batch, short.fits) == (1, False)


@pytest.mark.integration
def test_processes_that_train_together_hold_buckets_of_gradients() -> None:
    config = CASES["encoder-full"].model_copy(update={"micro_batch": 1})
    single, several = (estimate_memory(config, SCHEMA, processes=count) for count in (1, 2))
    gradients = 4 * single.trainable / 2**20
    assert several.memory_mb == pytest.approx(single.memory_mb + gradients, rel=0.02)


LORA = {"learning_rate": 1e-3, "rank": 4}


@pytest.mark.integration
def test_weights_that_are_prepared_but_not_quantized_count_in_full() -> None:
    wide = BackboneSource(name="wide", scratch=BACKBONES["encoder"] | {"hidden_size": 256, "intermediate_size": 1024})
    config = CASES["encoder-lora-bfloat16"].model_copy(update={"backbone": wide, "batch_size": 1, "window_tokens": 128})
    lora, pissa = (
        estimate_memory(config.model_copy(update={"finetuning": ComponentChoice(name=name, parameters=LORA)}), SCHEMA)
        for name in ("lora", "pissa")
    )
    assert {lora.note, pissa.note} == {""}
    assert pissa.memory_mb >= lora.memory_mb


def test_a_backbone_that_cannot_be_simulated_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("encoder", "token_classification", "full", window_tokens=200)  # not in the cache
    initialize = weights.initialize_model

    def initialize_with_unsupported_operation(*args: Any, **kwargs: Any) -> Any:
        model = initialize(*args, **kwargs)
        model.register_forward_hook(lambda *_: model.embeddings.word_embeddings.weight.tolist())
        return model

    monkeypatch.setattr("clinie_core.training.memory_meter.initialize_model", initialize_with_unsupported_operation)
    found = estimate_memory(config, SCHEMA)
    assert "encoder with full cannot be simulated" in found.note
    assert found.memory_mb == pytest.approx(16 * found.parameters / 2**20)


def test_simulation_leaves_torch_unchanged() -> None:
    import torch

    before = torch.nn.functional.scaled_dot_product_attention, torch.utils.swap_tensors
    with simulate("cuda"):
        assert torch.nn.functional.scaled_dot_product_attention is not before[0]
    assert (torch.nn.functional.scaled_dot_product_attention, torch.utils.swap_tensors) == before
    assert float(torch.ones(1)) == 1.0
