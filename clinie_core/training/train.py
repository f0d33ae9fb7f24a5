"""Train one configuration: the same code on a laptop, in a notebook and in a cluster's worker.

It knows nothing of who listens: after every epoch it calls ``on_epoch`` with the scores on the dev
split and goes on or ends as that says. The test split is never looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clinie_core.config import BEST, LAST, TrialConfig
from clinie_core.data.corpora.loading import apply_view
from clinie_core.data.document import Corpus
from clinie_core.errors import OutOfMemory
from clinie_core.modeling.distributed import DistributedContext, is_out_of_memory
from clinie_core.modeling.folder_replacement import recover_folder
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.state import TrainingProgress
from clinie_core.training.trainer import Trainer, choose_micro_batch

__all__ = ["EpochReport", "TrainingResult", "train"]


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to.

    Args:
        epoch: Its number, from 1.
        epochs: The trial's budget of epochs.
        metrics: Dev scores in [0, 1], ``train_loss`` (nats per decision), ``seconds``, ``tokens_per_second``
            of training, ``documents_per_second`` of prediction, ``peak_memory_mb`` and ``trainable_parameters``.
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


def train(
    config: TrialConfig,
    corpus: Corpus,
    *,
    cache: ModelCache | None = None,
    distributed: DistributedContext | None = None,
    folder: Path | None = None,
    start: Path | None = None,
    micro_batch: int | None = None,
    on_epoch: Callable[[EpochReport], bool] = lambda report: True,
) -> TrainingResult:
    """Train a configuration and keep its best checkpoint.

    Args:
        config: What to train.
        corpus: Its ``train`` split is trained on, its ``dev`` split scored after every epoch; without a dev
            split the last epoch counts as the best.
        cache: What is kept between trials; a fresh one if left out.
        distributed: This process's place among those that train together.
        folder: Where ``best`` and ``last`` checkpoints go; a ``last`` there is gone on from, and the
            epochs before it are reported again without being trained again. None writes nothing.
        start: A checkpoint whose weights training starts from in place of the pretrained ones, of a model of
            the same configuration but for its corpus and its budget.
        micro_batch: Windows that a process computes at once, in place of the configuration's; the result is the
            same but for rounding.
        on_epoch: Called in rank 0 after every epoch; False ends the trial.

    Returns:
        The best dev scores and where they were reached.

    Raises:
        InputError: If the configuration's parts are wrong or a checkpoint does not fit.
        OutOfMemory: If it does not fit into memory; what was kept in ``folder`` can be gone on from.
    """
    cache, distributed = cache or ModelCache(), distributed or DistributedContext.current()
    distributed.reset_peak_memory()
    try:
        return _train(config, corpus, cache, distributed, folder, start, micro_batch, on_epoch)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = OutOfMemory(
            choose_micro_batch(config, distributed, micro_batch), distributed.measure_peak_memory_mb()
        )
    finally:
        distributed.release_memory()
    distributed.release_memory()  # only now is the error gone, and with it the tensors that its frames held
    raise shortage


def _train(
    config: TrialConfig,
    corpus: Corpus,
    cache: ModelCache,
    distributed: DistributedContext,
    folder: Path | None,
    start: Path | None,
    micro_batch: int | None,
    on_epoch: Callable[[EpochReport], bool],
) -> TrainingResult:
    trainer = Trainer(config, apply_view(corpus, config.view), cache, distributed, micro_batch)
    if start is not None:
        trainer.load_initial_weights(start)
    progress = (
        trainer.load_state(folder / LAST)
        if folder is not None and recover_folder(folder / LAST)
        else TrainingProgress()
    )

    def goes_on(report: EpochReport) -> bool:
        return bool(distributed.broadcast_from_rank_zero(on_epoch(report) if distributed.rank == 0 else None))

    # Whoever listens may have gone down between an epoch's checkpoint and its report.
    reports = (
        EpochReport(epoch, config.epochs, m, finished=False) for epoch, m in enumerate(progress.history, start=1)
    )
    stopped = not all(goes_on(report) for report in reports)
    while not stopped:
        started = time.perf_counter()
        epoch = progress.epoch + 1
        learned = trainer.train_epoch(epoch)
        with trainer.use_scored_weights():
            metrics = trainer.score_dev() | learned | trainer.measure_size()  # scores first, as lists show them
            metrics["seconds"] = time.perf_counter() - started
            better = not progress.best_epoch or metrics[config.selection] > progress.best_metrics[config.selection]
            improved = better or not corpus["dev"]
            progress = progress.add_epoch(metrics, improved=improved)
            if folder is not None and improved:
                trainer.save_best(folder / BEST, metrics)
        out_of_patience = 0 < config.patience <= epoch - progress.best_epoch
        finished = out_of_patience or epoch == config.epochs
        if folder is not None and not finished:
            trainer.save_state(folder / LAST, progress)
        report = EpochReport(epoch, config.epochs, metrics, finished, out_of_patience and epoch < config.epochs)
        stopped = not goes_on(report) or finished
    return TrainingResult(progress.best_epoch, progress.best_metrics, progress.epoch)
