"""A model sharded over two processes trains, predicts and is saved like a model in a single process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.finetuning import FINETUNING
from clinie_core.modeling import sharding
from clinie_core.training.hardware import Hardware
from clinie_core.training.train import train

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, **COMMON},
    "decoder": {"model_type": "llama", "max_position_embeddings": 2048, "num_key_value_heads": 1, **COMMON},
}


def make_tiny_config(architecture: str, method: str = "full", head: str = "linear", **changes: Any) -> TrialConfig:
    row = FINETUNING.load(method)
    required = {"rank": 4, "prompt_tokens": 4}
    fields = row.model_fields.items()
    parameters = {name: required[name] for name, field in fields if field.is_required() and name in required}
    classification = ComponentChoice(name="token_classification", parameters={"head": head, "dropout": 0.0})
    generation = ComponentChoice(name="generation", parameters={"instruction": "short"})
    values: dict[str, Any] = {
        "backbone": BackboneSource(name="tiny", scratch=SCRATCH[architecture]),
        "formulation": classification if architecture == "encoder" else generation,
        "finetuning": ComponentChoice(name=method, parameters={"learning_rate": 3e-3, **parameters}),
        "epochs": 2,
        "batch_size": 5,
        "window_tokens": 160 if architecture == "encoder" else 900,
        "window_overlap": 16,
        "precision": "float32",
        "dropout": 0.0,
        "sharded": True,
    }
    return TrialConfig(**(values | changes))


def make_cases() -> dict[str, tuple[TrialConfig, int, int]]:
    """Return, by name, a configuration, the number of dev documents, and the epoch after which two processes stop."""
    found = {}
    for method in FINETUNING:
        row = FINETUNING.load(method)
        if row.supports_sharding:
            found[method] = (make_tiny_config("encoder" if "encoder" in row.architectures else "decoder", method), 3, 2)
    marked = ComponentChoice(name="marked_pairs", parameters={"pair_tokens": 64, "dropout": 0.0})
    pointer = ComponentChoice(name="span_pointer", parameters={"dropout": 0.0})
    joint = make_tiny_config("encoder", task="joint", formulation=pointer, relation_formulation=marked)
    return found | {
        "crf-average-and-uneven-shares": (make_tiny_config("encoder", head="crf", ema_decay=0.9, micro_batch=1), 3, 2),
        "joint": (joint, 3, 2),
        "generation-and-fewer-documents-than-processes": (make_tiny_config("decoder", "lora"), 1, 2),
        "gradient-checkpointing": (make_tiny_config("encoder", gradient_checkpointing=True), 2, 2),
        "stopped": (make_tiny_config("encoder", ema_decay=0.9), 3, 1),
        "resumed": (make_tiny_config("encoder", ema_decay=0.9), 3, 2),
        "bfloat16-encoder": (make_tiny_config("encoder", head="crf", precision="bfloat16"), 3, 2),
        "bfloat16-decoder": (make_tiny_config("decoder", "lora", precision="bfloat16", micro_batch=1), 3, 2),
        "float16-encoder": (make_tiny_config("encoder", "lora", precision="float16", ema_decay=0.9), 3, 2),
    }


CASES = make_cases()
INTERRUPTED = {"crf-average-and-uneven-shares", "generation-and-fewer-documents-than-processes"}
"""Cases in which both processes stop after an epoch and resume from the files that each has written."""
OWN_FOLDERS = {"float16-encoder"}
"""Cases in which the processes share no folder, so that one gathers and writes the state."""
GATHERED_PER_LAYER = {"bfloat16-decoder"}
"""Cases in which memory does not suffice to gather all weights for predictions."""
MEASURED = {"full", "lora"}
"""Cases in which the micro-batch is chosen by an estimate of memory."""


def make_corpus(documents: int) -> Corpus:
    splits = generate_splits(20, seed=3)
    return Corpus({"train": tuple(splits["train"][:5]), "dev": tuple(splits["dev"][:documents])})


def learn(name: str, folder: Path, epochs: int) -> list[float]:
    config, documents, _ = CASES[name]
    losses: list[float] = []

    def on_epoch(report: Any) -> bool:
        losses.append(report.metrics["train_loss"])
        return bool(report.epoch < epochs)

    hardware = Hardware("cpu", 1e5) if name in MEASURED else None
    train(config, make_corpus(documents), folder=folder, hardware=hardware, on_epoch=on_epoch)
    return losses


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all cases in two processes, started like torchrun does, and return their folder."""
    root = tmp_path_factory.mktemp("sharded")
    learn("resumed", root / "resumed", 1)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", __name__, str(root)]
    root_folder = Path(__file__).parents[2]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=root_folder)
    assert process.returncode == 0, process.stderr[-9000:]
    return root


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_sharded_model_has_the_same_losses_and_scores_as_a_single_process(
    name: str, two_processes: Path, tmp_path: Path
) -> None:
    losses = json.loads((two_processes / name / "losses.json").read_text(encoding="utf-8"))
    expected = learn(name, tmp_path / "single", 2)
    if name == "stopped":  # two processes stopped after one epoch; a single process resumes
        losses = learn(name, two_processes / name, 2)
    # A single process adds in float32 what a sharded model adds in the dtype of the computation.
    tolerance = 1e-4 if CASES[name][0].precision == "float32" else 0.02
    assert losses == pytest.approx(expected, rel=tolerance)
    folders = [folder / "best" for folder in (two_processes / name, tmp_path / "single")]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    assert {k: v.shape for k, v in weights[0].items()} == {k: v.shape for k, v in weights[1].items()}
    scores = [json.loads((folder / "clinie.json").read_text()) for folder in folders]
    assert scores[0]["metrics"]["strict_f1"] == pytest.approx(scores[1]["metrics"]["strict_f1"], abs=1e-3)
    assert scores[0]["config"] == scores[1]["config"]


def train_all(root: Path) -> None:
    """Train all cases; runs in each of the two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    for name, (_, _, epochs) in CASES.items():
        if name in INTERRUPTED:
            learn(name, root / name, 1)
            assert len(list((root / name / "last" / "shards").iterdir())) == distributed.get_world_size()
        folder = root / name
        if name in OWN_FOLDERS:
            folder = learn_in_own_folder(name, root)
        share = 0.0 if name in GATHERED_PER_LAYER else sharding.GATHERED_MEMORY_SHARE
        with mock.patch.object(sharding, "GATHERED_MEMORY_SHARE", share):
            losses = learn(name, folder, epochs)
        if distributed.get_rank() == 0:
            (root / name / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    distributed.destroy_process_group()


def learn_in_own_folder(name: str, root: Path) -> Path:
    """Train one epoch in a folder of each process, copy the state as object storage does, and return the folder."""
    rank = distributed.get_rank()
    folder = root / name if rank == 0 else root / f"{name}-{rank}"
    learn(name, folder, 1)
    distributed.barrier()
    assert len(list((root / name / "last" / "shards").iterdir())) == 1
    if rank:
        shutil.copytree(root / name / "last", folder / "last")
    distributed.barrier()
    return folder


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
