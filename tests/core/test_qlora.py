"""QLoRA on a CPU: the backbone is quantized once, stays out of checkpoints, and a killed training resumes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.train import train

if importlib.util.find_spec("bitsandbytes") is None:
    pytest.skip("bitsandbytes is not installed", allow_module_level=True)

MakeConfig = Callable[..., TrialConfig]
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SCRATCH = BackboneSource(name="wide", scratch={"model_type": "bert", "max_position_embeddings": 160, **SIZES})
QLORA = ComponentChoice(name="qlora", parameters={"rank": 4, "learning_rate": 5e-3})
SCHEMA = Schema(concept_types=("A",))
TRAIN = """
import os, signal, sys
from pathlib import Path
from clinie_core.config import TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.training.train import train

def on_epoch(report):
    if report.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return True

corpus = Corpus({split: tuple(notes) for split, notes in generate_splits(20, seed=3).items()})
train(TrialConfig.model_validate_json(sys.argv[1]), corpus, folder=Path(sys.argv[2]), on_epoch=on_epoch)
"""


def list_annotations(documents: Sequence[Document]) -> list[list[tuple[str, int, int]]]:
    return [[(c.type, c.start, c.end) for c in document.concepts] for document in documents]


def learn(config: TrialConfig, corpus: Corpus, folder: Path) -> list[tuple[float, ...]]:
    """Train and return the loss and the scores of each epoch, including earlier ones of a resumed training."""
    found: list[tuple[float, ...]] = []

    def on_epoch(report: Any) -> bool:
        found.append(tuple(report.metrics[name] for name in ("train_loss", "strict_f1", "lenient_f1")))
        return True

    train(config, corpus, folder=folder, on_epoch=on_epoch)
    return found


@pytest.mark.integration
def test_a_killed_training_resumes_with_equal_results_and_its_model_predicts(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    config = make_config(backbone=SCRATCH, finetuning=QLORA, epochs=4)
    command = [sys.executable, "-c", TRAIN, config.model_dump_json(), str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert learn(config, corpus, tmp_path / "killed") == learn(config, corpus, tmp_path / "whole")
    whole = Extractor.load(tmp_path / "whole" / "best")
    expected = list_annotations(whole.annotate(corpus["dev"]))
    assert any(expected)
    resumed = Extractor.load(tmp_path / "killed" / "best")
    assert list_annotations(resumed.annotate(corpus["dev"])) == expected
    whole.save(tmp_path / "saved")
    assert list_annotations(Extractor.load(tmp_path / "saved").annotate(corpus["dev"])) == expected
    names = load_file(tmp_path / "whole" / "best" / "model.safetensors")
    assert all("lora_" in name or name.startswith("heads.") for name in names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_trials_share_a_backbone_that_is_quantized_once_from_the_dtype_of_its_files(
    make_config: MakeConfig, tmp_path: Path, dtype: torch.dtype
) -> None:
    import bitsandbytes as bnb

    config = make_config(backbone=SCRATCH, finetuning=QLORA)
    plain = ModelCache().get_backbone(make_config(backbone=SCRATCH))
    plain.to(dtype).save_pretrained(tmp_path)
    config = config.model_copy(update={"backbone": BackboneSource(name="saved", folder=str(tmp_path))})
    cache = ModelCache()
    models = [build_model(config, SCHEMA, cache.get_backbone(config)) for _ in range(2)]
    layers = [[m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)] for model in models]
    assert len(layers[0]) == 12
    for first, second in zip(*layers, strict=True):
        assert first.weight is not second.weight
        assert first.weight.data_ptr() == second.weight.data_ptr()
        assert first.weight.dtype == torch.uint8
        assert first.weight.quant_state.dtype == dtype
        second.weight.quant_state.to(torch.device("meta"))  # as when a trial moves to a device
        assert first.weight.quant_state.absmax.device.type == "cpu"
    assert {m.__class__.__module__ for m in models[0].modules() if "lora" in repr(m)[:5]} == {"peft.tuners.lora.bnb"}
    lora = make_config(backbone=config.backbone, finetuning=ComponentChoice(name="lora", parameters=QLORA.parameters))
    whole = ModelCache()
    whole.get_backbone(lora)
    quantized = sum(layer.in_features * layer.out_features for layer in layers[0])
    tight = ModelCache(max_bytes=1)  # keeps the quantized backbone without the one that it was made from
    tight.get_backbone(config)
    rest = sum(p.numel() for p in plain.parameters()) - quantized
    assert tight.measure_bytes() < 0.7 * quantized + 4.1 * rest
    assert whole.measure_bytes() > 4 * quantized


def test_the_memory_of_a_configuration_is_estimated_without_a_gpu(make_config: MakeConfig) -> None:
    config = make_config(backbone=SCRATCH, finetuning=QLORA)
    lora = make_config(finetuning=ComponentChoice(name="lora", parameters=QLORA.parameters), backbone=SCRATCH)
    assert estimate_memory(config, SCHEMA).trainable == estimate_memory(lora, SCHEMA).trainable > 0
