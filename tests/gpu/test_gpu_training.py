"""Training, resuming and predicting on a CUDA GPU, compared with a CPU.

Needs neither Ray nor MLflow: ``python -m pytest --noconftest tests/gpu``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus, Document
from clinie_core.errors import OutOfMemory
from clinie_core.finetuning import FINETUNING
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.training.train import EpochReport, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

COMMON = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SCRATCH: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, **COMMON},
    "decoder": {"model_type": "llama", "max_position_embeddings": 2048, "num_key_value_heads": 1, **COMMON},
}
REQUIRED = {"rank": 4, "prompt_tokens": 4}
POINTER = ComponentChoice(name="span_pointer", parameters={"dropout": 0.0})
PAIRS = ComponentChoice(name="marked_pairs", parameters={"pair_tokens": 64, "dropout": 0.0})


def make_tiny_config(method: str = "full", architecture: str = "encoder", **changes: Any) -> TrialConfig:
    row = FINETUNING.load(method)
    required = {
        name: REQUIRED[name] for name, field in row.model_fields.items() if field.is_required() and name in REQUIRED
    }
    classification = ComponentChoice(name="token_classification", parameters={"head": "linear", "dropout": 0.0})
    generation = ComponentChoice(name="generation", parameters={"instruction": "short"})
    values: dict[str, Any] = {
        "backbone": BackboneSource(name="tiny", scratch=SCRATCH[architecture]),
        "formulation": classification if architecture == "encoder" else generation,
        "finetuning": ComponentChoice(name=method, parameters={"learning_rate": 3e-3, **required}),
        "epochs": 2,
        "batch_size": 4,
        "window_tokens": 160 if architecture == "encoder" else 900,
        "window_overlap": 16,
        "precision": "float32",
        "dropout": 0.0,
    }
    return TrialConfig(**(values | changes))


def choose_architecture(method: str) -> str:
    return "encoder" if "encoder" in FINETUNING.load(method).architectures else "decoder"


def question(name: str) -> ComponentChoice:
    return ComponentChoice(name=name, parameters={"dropout": 0.0})


FORMULATIONS = {
    "crf": make_tiny_config(formulation=ComponentChoice(name="token_classification", parameters={"head": "crf"})),
    "span_pointer": make_tiny_config(formulation=POINTER),
    "span_question": make_tiny_config(formulation=question("span_question")),
    "joint": make_tiny_config(task="joint", formulation=POINTER, relation_formulation=PAIRS),
    "relation_question": make_tiny_config(task="relations", relation_formulation=question("relation_question")),
    "generation": make_tiny_config(architecture="decoder"),
    "recomputed": make_tiny_config(gradient_checkpointing=True, ema_decay=0.9),
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    splits = generate_splits(30, seed=3)
    return Corpus({"train": tuple(splits["train"][:8]), "dev": tuple(splits["dev"][:3])})


@pytest.fixture
def gpu() -> DistributedContext:
    return DistributedContext(device=torch.device("cuda", 0))


def learn(
    config: TrialConfig, corpus: Corpus, where: DistributedContext, folder: Path | None = None, epochs: int = 2
) -> list[float]:
    losses: list[float] = []

    def on_epoch(report: EpochReport) -> bool:
        losses.append(report.metrics["train_loss"])
        return report.epoch < epochs

    train(config, corpus, distributed=where, folder=folder, on_epoch=on_epoch)
    return losses


def list_concepts(documents: list[Document]) -> list[Any]:
    return [document.concepts for document in documents]


@pytest.mark.parametrize("method", sorted(FINETUNING))
def test_each_method_trains_resumes_and_predicts(
    method: str, corpus: Corpus, gpu: DistributedContext, tmp_path: Path
) -> None:
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    config = make_tiny_config(method, choose_architecture(method), precision="auto")
    expected = learn(config, corpus, gpu, tmp_path / "undisturbed")
    first = learn(config, corpus, gpu, tmp_path / "resumed", epochs=1)
    losses = learn(config, corpus, gpu, tmp_path / "resumed")
    assert all(map(math.isfinite, losses))
    assert losses[:1] == first
    assert losses == pytest.approx(expected, rel=0.02)
    extractor = Extractor.load(tmp_path / "resumed" / "best", distributed=gpu)
    devices = {parameter.device.type for parameter in extractor._model.parameters()}
    assert devices == {"cuda"}
    predicted = list_concepts(extractor.annotate(corpus["dev"]))
    extractor.save(tmp_path / "saved")
    again = Extractor.load(tmp_path / "saved", distributed=gpu)
    assert list_concepts(again.annotate(corpus["dev"])) == predicted


@pytest.mark.parametrize("method", sorted(set(FINETUNING) - {"qlora"}))
def test_each_method_has_the_losses_of_a_cpu(method: str, corpus: Corpus, gpu: DistributedContext) -> None:
    config = make_tiny_config(method, choose_architecture(method))
    expected = learn(config, corpus, DistributedContext())
    # The GPU multiplies float32 matrices in TF32, whose mantissa has 10 bits.
    assert learn(config, corpus, gpu) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", sorted(FORMULATIONS))
def test_each_formulation_has_the_losses_and_annotations_of_a_cpu(
    name: str, corpus: Corpus, gpu: DistributedContext, tmp_path: Path
) -> None:
    config = FORMULATIONS[name]
    expected = learn(config, corpus, DistributedContext())
    assert learn(config, corpus, gpu, tmp_path) == pytest.approx(expected, rel=0.02)
    scores = [
        Extractor.load(tmp_path / "best", distributed=where).score(corpus["dev"])
        for where in (gpu, DistributedContext())
    ]
    assert scores[0].metrics()["strict_f1"] == pytest.approx(scores[1].metrics()["strict_f1"], abs=0.05)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_each_number_format_learns(
    architecture: str, precision: str, corpus: Corpus, gpu: DistributedContext, tmp_path: Path
) -> None:
    config = make_tiny_config("lora", architecture, precision=precision, epochs=3)
    losses = learn(config, corpus, gpu, tmp_path, epochs=3)
    assert losses[-1] < losses[0]
    Extractor.load(tmp_path / "best", distributed=gpu).annotate(corpus["dev"])


@pytest.fixture
def nccl(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_a_sharded_model_has_the_losses_of_an_unsharded_one(
    architecture: str, method: str, corpus: Corpus, gpu: DistributedContext, nccl: None, tmp_path: Path
) -> None:
    expected = learn(make_tiny_config(method, architecture), corpus, gpu)
    config = make_tiny_config(method, architecture, sharded=True)
    first = learn(config, corpus, gpu, tmp_path / "sharded", epochs=1)
    losses = learn(config, corpus, gpu, tmp_path / "sharded")
    assert losses[:1] == first
    assert losses == pytest.approx(expected, rel=0.02)


def test_a_shortage_of_memory_is_recognized_and_leaves_the_gpu_usable(corpus: Corpus, gpu: DistributedContext) -> None:
    config = make_tiny_config(batch_size=8, micro_batch=8)
    total = torch.cuda.get_device_properties(gpu.device).total_memory
    gpu.release_memory()
    torch.cuda.set_per_process_memory_fraction(24 * 2**20 / total, gpu.device)
    try:
        with pytest.raises(OutOfMemory) as caught:
            learn(config, corpus, gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu.device)
    assert caught.value.micro_batch == 8
    gpu.release_memory()
    assert all(map(math.isfinite, learn(config, corpus, gpu)))
