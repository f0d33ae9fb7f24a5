"""Processes that train together agree on the parameters that receive no gradient, in every architecture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import load_backbone
from clinie_core.modeling.parallel import find_unused_parameters
from clinie_core.modeling.precision import Precision
from clinie_core.training.train import train

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS = {"max_position_embeddings": 128}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "albert": BERT | POSITIONS | {"embedding_size": 16},
    "bert": BERT | POSITIONS,
    "deberta-v2": BERT | POSITIONS | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, **POSITIONS},
    "electra": BERT | POSITIONS | {"embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "llama": BERT | POSITIONS | {"num_key_value_heads": 1},
    "longformer": BERT | POSITIONS | {"attention_window": 8},
    "megatron-bert": BERT | POSITIONS,
    "modernbert": BERT | POSITIONS | {"local_attention": 8, "pad_token_id": 0},
    "qwen2": BERT | POSITIONS | {"num_key_value_heads": 1},
    "roberta": BERT | POSITIONS,
    "xlm-roberta": BERT | POSITIONS,
}
UNUSED = {"albert": {"pooler"}, "longformer": {"pooler", "global"}}
"""Parts of the names of the parameters that the heads do not use, by architecture."""
DECODERS = {"gpt2", "llama", "qwen2"}


def make_config(architecture: str, method: str, **changes: Any) -> TrialConfig:
    generates = architecture in DECODERS
    values: dict[str, Any] = {
        "backbone": BackboneSource(name="tiny", scratch={"model_type": architecture, **ARCHITECTURES[architecture]}),
        "formulation": ComponentChoice(name="generation" if generates else "token_classification"),
        "finetuning": ComponentChoice(name=method, parameters={"learning_rate": 3e-3}),
        "epochs": 1,
        "batch_size": 4,
        "window_tokens": 96,
        "window_overlap": 16,
        "precision": "float32",
        "dropout": 0.0,
    }
    return TrialConfig(**(values | changes))


@pytest.mark.parametrize("precision", [Precision(), Precision(torch.bfloat16)], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_without_a_gradient_are_found_from_one_loss(
    architecture: str, method: str, precision: Precision
) -> None:
    config = make_config(architecture, method)
    model = build_model(config, Schema(concept_types=("Drug",)), load_backbone(config), precision=precision)
    row = Example(tuple(range(5, 25)), tuple(range(20)), (1,) * 20)
    batch = collate([row], 0, torch.device("cpu"), targets=True, component="concepts", aligned=True)
    with model.autocast():
        loss = model(batch)
    found = find_unused_parameters(model, loss)
    loss.backward()
    assert found == [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    expected = UNUSED.get(architecture, set()) - (set() if method == "full" else {"pooler"})
    assert {part for name in found for part in ("pooler", "global") if part in name} == expected
    assert bool(found) == bool(expected)


@pytest.mark.integration
def test_two_processes_train_longformer_like_a_single_process(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", __name__, str(tmp_path / "two")]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=Path(__file__).parents[2]
    )
    assert process.returncode == 0, process.stderr[-9000:]
    learn(tmp_path / "one")
    for method in ("full", "lora"):
        one, two = (tmp_path / count / method for count in ("one", "two"))
        losses = [json.loads((folder / "loss.json").read_text(encoding="utf-8")) for folder in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        weights = [load_file(folder / "best" / "model.safetensors") for folder in (one, two)]
        assert weights[0].keys() == weights[1].keys()


def learn(root: Path) -> None:
    """Train Longformer with both methods; each process of a group calls this function."""
    splits = generate_splits(20, seed=3)
    corpus = Corpus({"train": tuple(splits["train"][:5]), "dev": tuple(splits["dev"][:2])})
    undropped = ComponentChoice(name="token_classification", parameters={"dropout": 0.0})
    for method in ("full", "lora"):
        config = make_config("longformer", method, micro_batch=1, formulation=undropped)
        result = train(config, corpus, folder=root / method)
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            text = json.dumps(result.best_metrics["train_loss"])
            (root / method / "loss.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    learn(Path(sys.argv[1]))
    distributed.destroy_process_group()
