"""Micro-batches and gradient checkpointing change only memory; training resumes after an out-of-memory error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import load_backbone
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.train import train

MakeConfig = Callable[..., TrialConfig]


def weights_after(config: TrialConfig, corpus: Corpus, folder: Path, **how: Any) -> dict[str, Any]:
    train(config, corpus, folder=folder, **how)
    return dict(load_file(folder / "best" / "model.safetensors"))


@pytest.mark.integration
@pytest.mark.parametrize("method", ["full", "lora"])
def test_accumulated_gradients_equal_those_of_the_whole_batch(
    method: str, make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    undropped = ComponentChoice(name="token_classification", parameters={"dropout": 0.0})
    config = make_config(
        epochs=1, formulation=undropped, finetuning=ComponentChoice(name=method, parameters={"learning_rate": 1e-3})
    )
    full_batch = weights_after(config, corpus, tmp_path / "full_batch")
    variants = {
        "argument": (config, {"micro_batch": 3}),
        "configured": (config.model_copy(update={"micro_batch": 1}), {}),
        "checkpointed": (config.model_copy(update={"gradient_checkpointing": True}), {}),
        "recomputed": (config, {"recomputation": True, "micro_batch": 1}),
    }
    for name, (changed, how) in variants.items():
        parts = weights_after(changed, corpus, tmp_path / name, **how)
        assert parts.keys() == full_batch.keys()
        for key, value in full_batch.items():
            assert parts[key] == pytest.approx(value, abs=2e-4), f"{key} {name}"


def test_prefix_tuning_rejects_gradient_checkpointing(make_config: MakeConfig, corpus: Corpus, tmp_path: Path) -> None:
    from clinie_core.config import BackboneSource

    llama = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = make_config(
        backbone=BackboneSource(
            name="tiny_decoder", scratch={**llama, "num_key_value_heads": 2, "intermediate_size": 64}
        ),
        finetuning=ComponentChoice(name="prefix_tuning", parameters={"prompt_tokens": 2, "learning_rate": 1e-3}),
        gradient_checkpointing=True,
    )
    with pytest.raises(InputError, match="prefix_tuning on tiny_decoder does not support gradient checkpointing"):
        train(config, corpus)


@pytest.mark.parametrize(("method", "enabled"), [("full", True), ("prefix_tuning", False)])
def test_recomputation_is_enabled_where_it_is_supported(
    method: str, enabled: bool, make_config: MakeConfig, corpus: Corpus
) -> None:
    parameters = {"learning_rate": 1e-3} | ({} if enabled else {"prompt_tokens": 2})
    config = make_config(finetuning=ComponentChoice(name=method, parameters=parameters))
    schema = Schema.from_documents(corpus["train"])
    for wanted in (False, True):
        model = build_model(config, schema, load_backbone(config), recomputation=wanted)
        assert any(getattr(part, "gradient_checkpointing", False) for part in model.modules()) is (wanted and enabled)


@pytest.mark.integration
def test_the_memory_estimate_reflects_settings_that_save_memory(make_config: MakeConfig, corpus: Corpus) -> None:
    schema = Schema.from_documents(corpus["train"])
    config = make_config(batch_size=16)

    def estimate(processes: int = 1, **changes: Any) -> float:
        return estimate_memory(config.model_copy(update=changes), schema, processes=processes).memory_mb

    assert estimate(micro_batch=4) < estimate(micro_batch=8) < estimate()
    assert estimate(gradient_checkpointing=True) < estimate()
    assert estimate(processes=2) < estimate(), "each process computes a part of the batch"
    assert estimate(processes=2, sharded=True) < estimate(processes=2)
    assert estimate(sharded=True) == estimate()


SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
from clinie_core.config import TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.errors import OutOfMemory
from clinie_core.training.train import train

torch.set_num_threads(1)
config, folder = TrialConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2])
corpus = Corpus({s: tuple(n) for s, n in generate_splits(60, seed=3).items()})
train(config.model_copy(update={"epochs": 1}), corpus, micro_batch=1)  # loads everything that is loaded once
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 600 * 2**20, -1))
error = []
try:
    train(config, corpus, folder=folder)
except OutOfMemory as exception:
    error = [exception.micro_batch, exception.peak_memory_mb, str(exception)]
result = train(config, corpus, folder=folder, micro_batch=1)
print(json.dumps({"error": error, "epochs": result.last_epoch}))
"""


@pytest.mark.integration
def test_a_smaller_micro_batch_fits_after_an_out_of_memory_error_in_the_same_process(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    wide = {"model_type": "bert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = make_config(
        backbone={"name": "wide", "scratch": {**wide, "intermediate_size": 2048, "max_position_embeddings": 512}},
        batch_size=64,
        window_tokens=400,
        window_overlap=32,
    )
    command = [sys.executable, "-c", SCRIPT, config.model_dump_json(), str(tmp_path / "trial")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["error"][0] == 64
    assert found["error"][1] > 100
    assert found["error"][2].startswith("out of memory with 64 windows at once")
    assert found["epochs"] == 2
