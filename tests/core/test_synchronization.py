"""A training step reads no result of the device, except once in transformers: each reading waits for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clinie_core.config import BackboneSource, ComponentChoice, Task, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.encoding.batch import IGNORE_INDEX, collate
from clinie_core.encoding.examples import Example
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.trainer import Trainer
from clinie_core.training.training_data import TrainingData

WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "max_position_embeddings": 128, **WIDTHS},
    "llama": {"model_type": "llama", "max_position_embeddings": 1024, "num_key_value_heads": 1, **WIDTHS},
}
FORMULATIONS: dict[str, tuple[str, str, Task, dict[str, Any]]] = {
    "linear": ("bert", "token_classification", "concepts", {"head": "linear"}),
    "crf": ("bert", "token_classification", "concepts", {"head": "crf"}),
    "span_pointer": ("bert", "span_pointer", "concepts", {}),
    "span_question": ("bert", "span_question", "concepts", {}),
    "marked_pairs": ("bert", "marked_pairs", "relations", {"pair_tokens": 64}),
    "generation": ("llama", "generation", "concepts", {"instruction": "short"}),
}
ATEN = torch.ops.aten
READING = {ATEN._local_scalar_dense, ATEN.nonzero, ATEN._unique2, ATEN.unique_dim, ATEN.masked_select, ATEN.equal}


class ReadingCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations for which a process waits for the device, because their result is on the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.readings: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexes = args[1] if func.overloadpacket in (ATEN.index, ATEN.index_put, ATEN.index_put_) else ()
        masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indexes)
        if func.overloadpacket in READING or masked:
            self.readings.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_step_reads_at_most_one_result(name: str, method: str) -> None:
    kind, formulation, task, parameters = FORMULATIONS[name]
    config = TrialConfig(
        task=task,
        backbone=BackboneSource(name=kind, scratch=SCRATCH[kind]),
        formulation=ComponentChoice(name=formulation, parameters=parameters),
        finetuning=ComponentChoice(name=method, parameters={"learning_rate": 1e-3}),
        epochs=1,
        batch_size=4,
        window_tokens=96 if kind == "bert" else 512,
        window_overlap=16,
        precision="bfloat16",
    )
    splits = generate_splits(20, seed=3)
    corpus = Corpus({"train": tuple(splits["train"][:2]), "dev": tuple(splits["dev"][:1])})
    cache = ModelCache()
    data = TrainingData.encode(config, corpus, cache)
    trainer = Trainer(config, data, cache, DistributedContext())
    steps = sum(-(-len(rows) // config.batch_size) for rows in data.examples.values())
    with ReadingCounter() as counter:
        trainer.train_epoch(1)
    assert counter.readings.pop() == "aten._local_scalar_dense.default"  # the loss of the epoch
    assert len(counter.readings) <= steps


def test_aligned_rows_have_the_targets_of_their_own_positions() -> None:
    rows = [Example((1, 2, 3, 4), (1, 2), (7, 8)), Example((1, 2, 3, 4, 5), (2, 4), (9, 6))]
    batch = collate(rows, 0, torch.device("cpu"), targets=True, aligned=True)
    assert batch.targets is not None
    assert batch.positions.tolist() == [[1, 2, 4], [1, 2, 4]]
    assert batch.targets.tolist() == [[7, 8, IGNORE_INDEX], [IGNORE_INDEX, 9, 6]]
    assert batch.position_mask.tolist() == [[True] * 3] * 2
