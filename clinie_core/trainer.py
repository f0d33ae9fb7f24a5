"""One trial's model, data and optimizer: trains an epoch, scores the dev split, saves itself.

When to stop, what to keep and whom to tell is decided in :mod:`clinie_core.training`.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from clinie_core.batching import epoch_batches
from clinie_core.checkpoint import Checkpoint, trained_weights
from clinie_core.config import TrialConfig
from clinie_core.document import Corpus
from clinie_core.model import build_model, collate, finetuning_of, formulation_of
from clinie_core.optimization import MovingAverage, build_optimizer
from clinie_core.prediction import predict_concepts
from clinie_core.scoring import score_concepts
from clinie_core.shelf import Shelf
from clinie_core.training_state import Done, TrainingState
from clinie_core.world import World

__all__ = ["Trainer"]

MAX_GRADIENT_NORM = 1.0


class Trainer:
    """See the module.

    Args:
        config: What to train.
        corpus: With its ``train`` and ``dev`` splits.
        shelf: What is kept between trials.
        world: The place of this process among those that train together.
    """

    def __init__(self, config: TrialConfig, corpus: Corpus, shelf: Shelf, world: World) -> None:
        self.config = config
        self._world = world
        self._formulation = formulation_of(config)
        self._labels = self._formulation.labels(corpus.concept_types("train"))
        self._pad_id = int(shelf.tokenizer(config).pad_token_id or 0)
        mine = slice(world.rank, None, world.size)
        encoded = shelf.encoded(config, corpus["train"], corpus.digest("train"), self._labels, targets=True)
        self._examples = [example for document in encoded for example in document.examples if example.positions]
        self._lengths = [len(example.input_ids) for example in self._examples]
        self._dev = shelf.encoded(config, corpus["dev"], corpus.digest("dev"), self._labels, targets=False)[mine]
        self._dev_gold = [document.concepts for document in corpus["dev"][mine]]

        pristine = shelf.backbone(config)
        self._pristine_names = frozenset(pristine.state_dict())
        self._model = build_model(config, self._labels, pristine).to(world.device)
        steps = -(-len(self._examples) // config.batch_size) * config.epochs
        self._optimizer, self._scheduler = build_optimizer(config, finetuning_of(config), self._model, steps)
        self._average = MovingAverage(self._model, config.averaging) if config.averaging else None
        self._state = TrainingState(self._model, self._optimizer, self._scheduler, self._average, self._pristine_names)
        self._wrapped = nn.parallel.DistributedDataParallel(self._model) if world.size > 1 else self._model
        self._autocast = world.autocast(config)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch.

        Args:
            epoch: Its number, from 1; with the seed it decides batches and dropout.

        Returns:
            ``train_loss`` in nats per position, and ``tokens_per_second`` over all processes.
        """
        config, world = self.config, self._world
        torch.manual_seed(config.seed * 100_003 + epoch * 101 + world.rank)
        started = time.perf_counter()
        self._model.train()
        loss_sum = torch.zeros((), device=world.device)  # stays on the device: reading it would wait for each step
        for batch in epoch_batches(self._lengths, config.batch_size, seed=config.seed, epoch=epoch):
            loss_sum += self._step(batch)
        positions = sum(len(example.positions) for example in self._examples)
        total = sum(float(value) for value in world.gather(float(loss_sum)))
        seconds = time.perf_counter() - started
        return {"train_loss": total / positions, "tokens_per_second": sum(self._lengths) / seconds}

    def _step(self, batch: list[int]) -> torch.Tensor:
        """One optimizer step; returns this process's part of the summed loss."""
        world = self._world
        rows = [self._examples[i] for i in batch]
        positions = sum(len(row.positions) for row in rows)
        share = rows[world.rank :: world.size] or rows[:1]
        data = collate(share, self._pad_id, world.device, targets=True)
        with self._autocast:
            loss: torch.Tensor = self._wrapped(data)
        if len(rows) <= world.rank:  # fewer rows than processes: take part, weigh nothing
            loss = loss * 0.0
        # DDP averages over processes; the factor makes that the mean over the whole batch.
        (loss * (world.size / positions)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        return loss.detach()

    def scored_weights(self) -> AbstractContextManager[None]:
        """Within this context the model holds the weights that are scored and kept: their average, if there is one."""
        return self._average.in_place() if self._average is not None else nullcontext()

    def dev_scores(self) -> dict[str, float]:
        """Predict the dev split, each process its part, and score it."""
        predicted = predict_concepts(
            self._model, self._formulation, self._labels, self._dev, pad_id=self._pad_id, autocast=self._autocast
        )
        parts = self._world.gather(list(zip(self._dev_gold, predicted, strict=True)))
        return score_concepts(pair for part in parts for pair in part).metrics()

    def size(self) -> dict[str, float]:
        """``trainable_parameters``, and ``peak_memory_mb`` of the largest process so far."""
        trainable = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        peak = max(self._world.gather(self._world.peak_memory_mb()))
        return {"trainable_parameters": float(trainable), "peak_memory_mb": peak}

    def save_best(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write the checkpoint of an epoch that is the best so far."""
        checkpoint = Checkpoint(self.config, self._labels, metrics)
        checkpoint.save(folder, trained_weights(self._model, self._pristine_names))

    def save_state(self, folder: Path, done: Done) -> None:
        """Write all that is needed to go on after the last epoch."""
        self._state.save(folder, Checkpoint(self.config, self._labels, done.history[-1]), done)

    def load_state(self, folder: Path) -> Done:
        """Go on from a state that :meth:`save_state` wrote."""
        return self._state.load(folder)
