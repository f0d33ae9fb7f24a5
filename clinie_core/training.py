"""Train one configuration: the same code on a laptop, in a notebook and in a cluster's worker.

It knows nothing of who listens: after every epoch it calls ``on_epoch`` with the scores on the dev
split and goes on or ends as that says. The test split is never looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
from clinie_core.training_state import TrainingState
from clinie_core.world import World

__all__ = ["BEST", "LAST", "EpochReport", "TrainingResult", "train"]

BEST = "best"
LAST = "last"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to.

    Args:
        epoch: Its number, from 1.
        epochs: The trial's budget of epochs.
        metrics: Dev scores in [0, 1], ``train_loss`` (nats per position), ``seconds``,
            ``tokens_per_second``, ``peak_memory_mb`` and ``trainable_parameters``.
        finished: No further epoch follows, by budget or by patience.
        stopped_early: The trial's patience ended it before its budget.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    finished: bool
    stopped_early: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """How a trial ended: its best dev scores and the epoch that reached them."""

    best_epoch: int
    best_metrics: dict[str, float]
    last_epoch: int


class _Wrapped(nn.parallel.DistributedDataParallel):
    """DDP under a name that says why: gradients are averaged over the world's processes."""


def train(
    config: TrialConfig,
    corpus: Corpus,
    *,
    shelf: Shelf | None = None,
    world: World | None = None,
    folder: Path | None = None,
    on_epoch: Callable[[EpochReport], bool] = lambda report: True,
) -> TrainingResult:
    """Train a configuration and keep its best checkpoint.

    Args:
        config: What to train.
        corpus: Its ``train`` split is trained on, its ``dev`` split scored after every epoch.
        shelf: What is kept between trials; a fresh one if left out.
        world: This process's place among those that train together.
        folder: Where ``best`` and ``last`` checkpoints go; a ``last`` there is gone on from, and the
            epochs before it are reported again without being trained again. None writes nothing.
        on_epoch: Called in rank 0 after every epoch; False ends the trial.

    Returns:
        The best dev scores and where they were reached.

    Raises:
        InputError: If the configuration's parts are wrong or a checkpoint does not fit.
    """
    shelf, world = shelf or Shelf(), world or World.current()
    world.reset_peak_memory()
    if config.merge_types:
        corpus = corpus.merged(config.merge_types)
    formulation = formulation_of(config)
    labels = formulation.labels(corpus.concept_types("train"))
    pad_id = int(shelf.tokenizer(config).pad_token_id or 0)
    encoded = shelf.encoded(config, corpus["train"], corpus.digest("train"), labels, targets=True)
    examples = [example for document in encoded for example in document.examples if example.positions]
    dev = shelf.encoded(config, corpus["dev"], corpus.digest("dev"), labels, targets=False)[world.rank :: world.size]
    dev_gold = [document.concepts for document in corpus["dev"][world.rank :: world.size]]

    pristine = shelf.backbone(config)
    model = build_model(config, labels, pristine).to(world.device)
    pristine_names = frozenset(pristine.state_dict())
    lengths = [len(example.input_ids) for example in examples]
    steps = -(-len(examples) // config.batch_size) * config.epochs
    optimizer, scheduler = build_optimizer(config, finetuning_of(config), model, steps)
    average = MovingAverage(model, config.averaging) if config.averaging else None
    state = TrainingState(model, optimizer, scheduler, average, pristine_names)
    done = state.load(folder / LAST) if folder is not None and (folder / LAST).is_dir() else state.fresh()
    wrapped = _Wrapped(model) if world.size > 1 else model
    trainable = float(sum(p.numel() for p in model.parameters() if p.requires_grad))
    autocast = world.autocast(config)

    for epoch, metrics in enumerate(done.history, start=1):
        # Whoever listens may have gone down between an epoch's checkpoint and its report.
        report = EpochReport(epoch, config.epochs, metrics, finished=False)
        if not world.from_rank_zero(on_epoch(report) if world.rank == 0 else None):
            return TrainingResult(done.best_epoch, done.best_metrics, done.epoch)
    for epoch in range(done.epoch + 1, config.epochs + 1):
        torch.manual_seed(config.seed * 100_003 + epoch * 101 + world.rank)
        started = time.perf_counter()
        model.train()
        loss_sum = torch.zeros((), device=world.device)
        for batch in epoch_batches(lengths, config.batch_size, seed=config.seed, epoch=epoch):
            rows = [examples[i] for i in batch]
            positions = sum(len(row.positions) for row in rows)
            share = rows[world.rank :: world.size] or rows[:1]
            data = collate(share, pad_id, world.device, targets=True)
            with autocast:
                loss = wrapped(data)
            if len(rows) <= world.rank:  # fewer rows than processes: take part, weigh nothing
                loss = loss * 0.0
            # DDP averages over processes; the factor makes that the mean over the whole batch.
            (loss * (world.size / positions)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update()
            loss_sum += loss.detach()
        trained = time.perf_counter() - started
        with average.in_place() if average is not None else state.unchanged():
            predicted = predict_concepts(model, formulation, labels, dev, pad_id=pad_id, autocast=autocast)
            scored = score_concepts(
                pair for part in world.gather(list(zip(dev_gold, predicted, strict=True))) for pair in part
            )
            metrics = {
                **scored.metrics(),
                "train_loss": sum(float(v) for v in world.gather(float(loss_sum)))
                / sum(len(e.positions) for e in examples),
                "seconds": time.perf_counter() - started,
                "tokens_per_second": sum(lengths) / trained,
                "peak_memory_mb": max(world.gather(world.peak_memory_mb())),
                "trainable_parameters": trainable,
            }
            improved = done.best_epoch == 0 or metrics[config.selection] > done.best_metrics[config.selection]
            done = done.after(metrics, improved=improved)
            if folder is not None and world.rank == 0 and improved:
                weights = trained_weights(model, pristine_names)
                Checkpoint(config, labels, metrics).save(folder / BEST, weights)
        patience_out = 0 < config.patience <= epoch - done.best_epoch
        finished = patience_out or epoch == config.epochs
        if folder is not None and world.rank == 0 and not finished:
            state.save(folder / LAST, Checkpoint(config, labels, metrics), done)
        report = EpochReport(epoch, config.epochs, metrics, finished, patience_out and epoch < config.epochs)
        goes_on = world.from_rank_zero(on_epoch(report) if world.rank == 0 else None)
        if finished or not goes_on:
            break
    return TrainingResult(done.best_epoch, done.best_metrics, done.epoch)
