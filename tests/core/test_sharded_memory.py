"""The memory estimate of a sharded model runs the sharded training step; processes without peers are simulated."""

from __future__ import annotations

from typing import Any

import pytest

from clinie_core.config import BackboneSource, TrialConfig
from clinie_core.training.hardware import Hardware
from clinie_core.training.layer_counts import SHALLOW, count_identical_layers
from clinie_core.training.memory_estimate import MemoryEstimate, estimate_memory
from clinie_core.training.memory_meter import MemoryMeter
from clinie_core.training.peak_estimator import PeakEstimator
from clinie_core.training.simulation import simulate, simulate_processes
from clinie_core.training.synthetic_inputs import assume_largest_inputs
from tests.core.test_memory_estimate import SCHEMA, make_config

PROCESSES = 4
SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
BACKBONES: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, "vocab_size": 4000, **SIZES},
    "decoder": {
        **{"model_type": "llama", "max_position_embeddings": 2048, "num_key_value_heads": 2, "vocab_size": 4000},
        **SIZES,
    },
}


def make_sharded(backbone: str, formulation: str, method: str, **changes: Any) -> TrialConfig:
    source = BackboneSource(name=backbone, scratch=BACKBONES[backbone])
    values: dict[str, Any] = {"sharded": True, "window_tokens": 64, "precision": "bfloat16"}
    config = make_config(backbone, formulation, method, **(values | changes))
    return config.model_copy(update={"backbone": source})


CASES = {
    "encoder-full": make_sharded("encoder", "token_classification", "full"),
    "encoder-full-float32": make_sharded("encoder", "token_classification", "full", precision="float32"),
    "encoder-lora-average": make_sharded("encoder", "token_classification", "lora", ema_decay=0.9),
    "decoder-lora": make_sharded("decoder", "generation", "lora", micro_batch=1),
    "decoder-full": make_sharded("decoder", "generation", "full", gradient_checkpointing=True),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_estimate_is_within_a_tenth_of_the_memory_of_real_tensors(name: str) -> None:
    config = CASES[name]
    inputs = assume_largest_inputs(config, SCHEMA)
    micro_batch = config.micro_batch or config.batch_size // PROCESSES
    with simulate_processes(PROCESSES) as mesh:
        meter = PeakEstimator.of(MemoryMeter(config, SCHEMA, inputs, PROCESSES, mesh=mesh))
        real = meter.measure(micro_batch, accumulates=config.micro_batch is not None)
    found = estimate_memory(config, SCHEMA, processes=PROCESSES)
    assert found.note == ""
    assert found.memory_mb == pytest.approx(real, rel=0.1)


@pytest.mark.integration
@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("name", ["decoder-lora", "encoder-lora-average"])
def test_two_shallow_backbones_give_the_memory_of_a_deep_sharded_one(name: str, *, gathers: bool) -> None:
    backbone = CASES[name].backbone
    deep = BackboneSource(name=backbone.name, scratch={**(backbone.scratch or {}), "num_hidden_layers": 8})
    config = CASES[name].model_copy(update={"backbone": deep})
    layers, inputs = count_identical_layers(config), assume_largest_inputs(config, SCHEMA)
    assert layers == 8
    micro_batch, accumulates = config.micro_batch or config.batch_size // PROCESSES, config.micro_batch is not None
    hardware = Hardware("cuda", None if gathers else 8.0)
    with simulate_processes(PROCESSES) as mesh, simulate("cuda"):
        whole = PeakEstimator.of(MemoryMeter(config, SCHEMA, inputs, PROCESSES, hardware, mesh=mesh))
        few = {n: MemoryMeter(config, SCHEMA, inputs, PROCESSES, hardware, layers=n, mesh=mesh) for n in SHALLOW}
        shallow = PeakEstimator(few, layers)
        measured, extrapolated = (e.measure(micro_batch, accumulates=accumulates) for e in (whole, shallow))
    assert extrapolated == pytest.approx(measured, rel=1e-3)
    assert shallow.count_parameters() == whole.count_parameters()


def estimate(config: TrialConfig, processes: int, memory_mb: float | None = None) -> MemoryEstimate:
    found = estimate_memory(config, SCHEMA, processes=processes, hardware=Hardware("cuda", memory_mb))
    assert found.note == ""
    return found


@pytest.mark.integration
def test_gathered_weights_count_where_a_prediction_uses_them() -> None:
    config = CASES["decoder-lora"]
    gathered, per_layer = (estimate(config, 8, memory).memory_mb for memory in (None, 8.0))
    weights = 2 * estimate(config, 8).parameters / 2**20
    assert per_layer < gathered
    assert gathered > weights * (1 + 1 / 8)


@pytest.mark.integration
def test_a_process_holds_its_share_of_weights_gradients_and_optimizer_state() -> None:
    config = CASES["encoder-full"].model_copy(update={"micro_batch": 1})
    two, eight = (estimate(config, processes) for processes in (2, 8))
    state = 12 * two.parameters / 2**20  # float32 weights and two moments
    assert two.memory_mb - eight.memory_mb == pytest.approx(state * (1 / 2 - 1 / 8), rel=0.15)
