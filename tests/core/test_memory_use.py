"""A training chooses its micro-batch by a simulated step with the longest inputs of its corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.hardware import Hardware
from clinie_core.training.live_storage import LiveStorage
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.memory_use import MemoryUse, choose_memory_use
from clinie_core.training.synthetic_inputs import assume_largest_inputs, find_largest_inputs
from clinie_core.training.train import train
from clinie_core.training.trainer import Trainer
from clinie_core.training.training_data import TrainingData

MakeConfig = Callable[..., TrialConfig]
UNDROPPED = ComponentChoice(name="token_classification", parameters={"dropout": 0.0})
WIDE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
ENCODER = BackboneSource(name="wide", scratch={"model_type": "bert", "max_position_embeddings": 512, **WIDE})
DECODER = BackboneSource(
    name="wide_decoder",
    scratch={"model_type": "llama", "max_position_embeddings": 2048, "num_key_value_heads": 2, **WIDE},
)
FULL = ComponentChoice(name="full", parameters={"learning_rate": 1e-3})
WHOLE_BATCH = MemoryUse(8)
CASES: dict[str, dict[str, Any]] = {
    "tokens": {"formulation": UNDROPPED},
    "spans": {"formulation": ComponentChoice(name="span_pointer")},
    "answers": {
        "backbone": DECODER,
        "formulation": ComponentChoice(name="generation", parameters={"instruction": "short"}),
        "window_tokens": 320,
        "batch_size": 11,  # a divisor of the number of examples, so that the longest batch is complete
    },
}


def estimate(config: TrialConfig, data: TrainingData, *, full_windows: bool = False, **changes: Any) -> float:
    inputs = assume_largest_inputs(config, data.schema) if full_windows else find_largest_inputs(config, data)
    return estimate_memory(config.model_copy(update=changes), data.schema, inputs=inputs).memory_mb


@pytest.mark.integration
@pytest.mark.parametrize("case", sorted(CASES))
def test_the_estimate_for_a_corpus_is_within_a_tenth_of_the_memory_of_its_epochs(
    case: str, make_config: MakeConfig, corpus: Corpus
) -> None:
    config = make_config(**({"backbone": ENCODER, "finetuning": FULL, "window_tokens": 256} | CASES[case]))
    data, cache = TrainingData.encode(config, corpus, ModelCache()), ModelCache()
    trainer, storage = Trainer(config, data, cache, DistributedContext()), LiveStorage()
    trainer.train_epoch(1)  # creates the state of the optimizer
    storage.track(cache.get_backbone(config).parameters())
    storage.track(trainer._model.parameters())
    storage.track(t for state in trainer._optimizer.state.values() for t in state.values())
    storage.reset_peak()
    with storage:
        for epoch in (2, 3):
            trainer.train_epoch(epoch)
        trainer.score_dev()
    measured = storage.peak / 2**20
    assert estimate(config, data) == pytest.approx(measured, rel=0.1)
    full_windows = estimate(config, data, full_windows=True)
    if case == "answers":
        assert full_windows < measured, "answers of this template are longer than a share of the window"
    else:
        assert full_windows > 1.1 * measured


@pytest.mark.integration
def test_a_chosen_micro_batch_fits_and_leaves_the_result_unchanged(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    config = make_config(backbone=ENCODER, formulation=UNDROPPED, epochs=1)
    data = TrainingData.encode(config, corpus, ModelCache())
    limit = (estimate(config, data) + estimate(config, data, micro_batch=1)) / 2
    whole, ample, small = (
        train(config, corpus, folder=tmp_path / name, hardware=hardware)
        for name, hardware in (
            ("whole", None),
            ("ample", Hardware("cpu", 1e6)),
            ("small", Hardware("cpu", limit)),
        )
    )
    assert [result.memory_use.micro_batch for result in (whole, ample)] == [8, 8]
    assert 1 < small.memory_use.micro_batch < 8
    assert estimate(config, data, micro_batch=small.memory_use.micro_batch) <= limit
    expected, same, accumulated = (
        load_file(tmp_path / name / "best" / "model.safetensors") for name in ("whole", "ample", "small")
    )
    for key, value in expected.items():
        assert torch.equal(same[key], value), "a simulation does not change random numbers"
        assert accumulated[key] == pytest.approx(value, abs=2e-4)


@pytest.mark.integration
def test_the_smallest_settings_are_chosen_if_none_fits(make_config: MakeConfig, corpus: Corpus) -> None:
    deep = {"model_type": "bert", "max_position_embeddings": 512, **WIDE, "num_hidden_layers": 12}
    config = make_config(
        backbone=BackboneSource(name="deep", scratch=deep), formulation=UNDROPPED, batch_size=8, window_tokens=256
    )
    data, single = TrainingData.encode(config, corpus, ModelCache()), DistributedContext()

    def choose(memory_mb: float | None, largest: MemoryUse = WHOLE_BATCH, **changes: Any) -> MemoryUse:
        hardware = Hardware("cpu", memory_mb)
        return choose_memory_use(config.model_copy(update=changes), data, single, hardware, largest)

    assert choose(0.001) == MemoryUse(1, recomputation=True)
    assert choose(1e6) == WHOLE_BATCH
    assert choose(1e6, MemoryUse(3, recomputation=True)) == MemoryUse(3, recomputation=True), "an earlier shortage"
    assert choose(0.001, micro_batch=4) == WHOLE_BATCH, "the configuration states a micro-batch"
    assert choose(None) == WHOLE_BATCH
    recomputed = estimate(config, data, micro_batch=1, gradient_checkpointing=True)
    plain = estimate(config, data, micro_batch=1)
    assert recomputed < plain
    assert choose((recomputed + plain) / 2).recomputation
