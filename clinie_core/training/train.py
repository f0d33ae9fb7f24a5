"""Training loop for one configuration; the same on a laptop, in a notebook and in a cluster's worker.

After every epoch the loop calls ``on_epoch`` with the scores on the dev split; the return value decides
whether training continues. The loop never uses the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clinie_core.config import BEST, LAST, TrialConfig, rate_epoch
from clinie_core.data.corpora.folds import select_fold
from clinie_core.data.corpora.views import apply_view
from clinie_core.data.document import Corpus
from clinie_core.errors import OutOfMemory
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.folder_replacement import recover_folder
from clinie_core.modeling.memory_errors import is_out_of_memory
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.hardware import Hardware, detect_hardware
from clinie_core.training.memory_use import MemoryUse, choose_memory_use
from clinie_core.training.state import TrainingProgress
from clinie_core.training.trainer import Trainer, choose_micro_batch
from clinie_core.training.training_data import TrainingData

__all__ = ["EpochReport", "TrainingResult", "train"]

DIVERGED_EPOCHS = 2
"""Number of consecutive epochs whose loss is not a finite number after which a training ends. A single one may be an
overflow from which the training recovers."""


@dataclass(frozen=True)
class EpochReport:
    """Results of one epoch.

    Args:
        epoch: 1-based number of the epoch.
        epochs: Maximum number of epochs of the trial.
        metrics: Dev scores in [0, 1], ``train_loss`` (nats per loss term), ``optimizer_steps`` since the start of the
            training, ``seconds``, ``tokens_per_second`` of training, ``documents_per_second`` of prediction,
            ``peak_memory_mb`` (MiB) and ``trainable_parameters``.
        finished: Whether this is the last epoch, by budget, by patience, or because the training has diverged.
        stopped_early: Whether the trial ends before its budget.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    finished: bool
    stopped_early: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Args:
        best_epoch: 1-based number of the best epoch.
        best_metrics: Metrics of the best epoch.
        last_epoch: 1-based number of the last epoch.
        memory_use: Micro-batch and recomputation.
    """

    best_epoch: int
    best_metrics: dict[str, float]
    last_epoch: int
    memory_use: MemoryUse


def train(
    config: TrialConfig,
    corpus: Corpus,
    *,
    cache: ModelCache | None = None,
    distributed: DistributedContext | None = None,
    folder: Path | None = None,
    start: Path | None = None,
    micro_batch: int | None = None,
    recomputation: bool = False,
    hardware: Hardware | None = None,
    on_epoch: Callable[[EpochReport], bool] = lambda report: True,
    before_step: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Train a configuration and save its best checkpoint.

    Several processes of one distributed context call this function together.

    Args:
        config: The configuration.
        corpus: The ``train`` split is trained on and the ``dev`` split is scored after every epoch. If the dev
            split is empty, the last epoch counts as the best. If the configuration names a fold, the documents of
            both splits are divided into folds.
        cache: Holds backbones and encoded corpora between trials; a new one if omitted.
        distributed: The processes that train together; the current process group if omitted.
        folder: Folder for the ``best`` and ``last`` checkpoints; None writes nothing. Training resumes from an
            existing ``last`` checkpoint, and reports the earlier epochs again without training them again.
        start: A checkpoint with initial weights, instead of the pretrained ones. Its configuration may differ in
            the corpus and the number of epochs only.
        micro_batch: Largest number of windows per forward pass in one process, instead of the configuration's
            value; results are equal up to rounding.
        recomputation: Whether to recompute activations in the backward pass even if the configuration does not say
            so, provided that method and backbone support it; results are equal up to rounding.
        hardware: Hardware of this process; that of its device if omitted. If its memory is known and the
            configuration does not state a micro-batch, a simulated training step determines the largest one that fits.
        on_epoch: Called in rank 0 after every epoch; training ends if it returns False.
        before_step: Called in every process before each optimizer step and each batch of the dev split. An exception
            that it raises ends the training; a later call with the same ``folder`` repeats the epoch.

    Returns:
        The best epoch with its metrics, the last epoch, and the chosen memory use.

    Raises:
        InputError: If the configuration is invalid or a checkpoint does not fit it.
        OutOfMemory: If memory is insufficient; a later call with the same ``folder`` resumes.
    """
    cache, distributed = cache or ModelCache(), distributed or DistributedContext.current()
    distributed.reset_peak_memory()
    use = MemoryUse(choose_micro_batch(config, distributed, micro_batch), recomputation)
    try:
        data = TrainingData.encode(config, select_fold(apply_view(corpus, config.view), config.fold), cache)
        use = choose_memory_use(config, data, distributed, hardware or detect_hardware(distributed.device), use)
        return _train(config, data, cache, distributed, folder, start, use, on_epoch, before_step)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = OutOfMemory(
            use.micro_batch,
            distributed.measure_peak_memory_mb(),
            recomputation=config.gradient_checkpointing or use.recomputation,
        )
    finally:
        distributed.release_memory()
    distributed.release_memory()  # the error has been released by now, with the tensors that its frames held
    raise shortage


def _train(
    config: TrialConfig,
    data: TrainingData,
    cache: ModelCache,
    distributed: DistributedContext,
    folder: Path | None,
    start: Path | None,
    use: MemoryUse,
    on_epoch: Callable[[EpochReport], bool],
    before_step: Callable[[], None],
) -> TrainingResult:
    trainer = Trainer(config, data, cache, distributed, use.micro_batch, recomputation=use.recomputation)
    trainer.set_before_step(before_step)
    if start is not None:
        trainer.load_initial_weights(start)
    progress = (
        trainer.load_state(folder / LAST)
        if folder is not None and recover_folder(folder / LAST)
        else TrainingProgress()
    )

    def report_epoch(report: EpochReport) -> bool:
        """Return whether training continues; a collective operation."""
        return bool(distributed.broadcast_from_rank_zero(on_epoch(report) if distributed.rank == 0 else None))

    # The process may have been killed between the checkpoint of an epoch and its report.
    reports = (
        EpochReport(epoch, config.epochs, m, finished=False) for epoch, m in enumerate(progress.history, start=1)
    )
    stopped = not all(report_epoch(report) for report in reports)
    while not stopped:
        started = time.perf_counter()
        epoch = progress.epoch + 1
        training_metrics = trainer.train_epoch(epoch)
        with trainer.use_scored_weights():
            metrics = trainer.score_dev() | training_metrics | trainer.measure_size()  # lists show the scores first
            metrics["seconds"] = time.perf_counter() - started
            best = progress.best_metrics
            better = not best or rate_epoch(metrics, config.selection) > rate_epoch(best, config.selection)
            improved = better or not data.dev
            progress = progress.add_epoch(metrics, improved=improved)
            if folder is not None and improved:
                trainer.save_best(folder / BEST, metrics)
                distributed.wait_for_rank_zero()  # the next collective operation of the device has a time limit
        out_of_patience = 0 < config.patience <= epoch - progress.best_epoch
        losses = [past["train_loss"] for past in progress.history[-DIVERGED_EPOCHS:]]
        diverged = len(losses) == DIVERGED_EPOCHS and not any(map(math.isfinite, losses))
        finished = out_of_patience or diverged or epoch == config.epochs
        if folder is not None and not finished:
            trainer.save_state(folder / LAST, progress)
            distributed.wait_for_rank_zero()
        report = EpochReport(epoch, config.epochs, metrics, finished, finished and epoch < config.epochs)
        stopped = not report_epoch(report) or finished
    return TrainingResult(progress.best_epoch, progress.best_metrics, progress.epoch, use)
