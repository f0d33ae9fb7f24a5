"""Trainer of one trial: model, data and optimizer, with methods to train an epoch, score the dev split and save.

:mod:`clinie_core.training.train` decides when to stop, what to save and what to report.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from clinie_core.config import TrialConfig
from clinie_core.data.document import Document
from clinie_core.data.schema import get_corpus_name
from clinie_core.encoding.batch import Batch, collate
from clinie_core.encoding.examples import Example
from clinie_core.errors import fail
from clinie_core.inference.prediction import Predictor
from clinie_core.modeling.checkpoint import Checkpoint, load_weights, select_trained_weights
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.folder_replacement import recover_folder
from clinie_core.modeling.model import ExtractionModel, build_model, load_finetuning
from clinie_core.modeling.model_cache import ModelCache, load_backbone
from clinie_core.modeling.parallel import find_unused_parameters, skip_gradient_sync, wrap_data_parallel
from clinie_core.modeling.precision import detect_precision
from clinie_core.modeling.sharding import build_mesh, shard
from clinie_core.modeling.weight_file import GatheredTensors
from clinie_core.scoring import score_task
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.error_counts import ErrorCounts
from clinie_core.scoring.scores import Scores
from clinie_core.training.optimization import MovingAverage, build_optimizer
from clinie_core.training.state import TrainingProgress, TrainingState
from clinie_core.training.training_data import TrainingData

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

__all__ = ["Trainer", "choose_micro_batch"]

MAX_GRADIENT_NORM = 1.0


def choose_micro_batch(config: TrialConfig, distributed: DistributedContext, wanted: int | None = None) -> int:
    """Return the number of windows per forward pass in one process.

    Args:
        config: Batch size and, if set, micro-batch size.
        distributed: The processes that share a batch.
        wanted: Replaces the configuration's micro-batch size.
    """
    share = -(-config.batch_size // distributed.size)
    return min(share, wanted or config.micro_batch or share)


class Trainer:
    """Model, data and optimizer of one trial.

    All processes of a distributed context create a trainer and call its methods in the same order. Methods that are
    collective operations say so.

    Args:
        config: The configuration.
        data: The encoded corpus.
        cache: Holds backbones between trials.
        distributed: The processes that train together.
        micro_batch: Windows per forward pass in one process; the configuration's value if omitted.
        recomputation: Whether to recompute activations even if the configuration does not say so.

    Raises:
        InputError: If the configuration does not fit the backbone or the number of processes.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: TrainingData,
        cache: ModelCache,
        distributed: DistributedContext,
        micro_batch: int | None = None,
        *,
        recomputation: bool = False,
    ) -> None:
        self.config = config
        self._recomputation = recomputation
        self.micro_batch = choose_micro_batch(config, distributed, micro_batch)
        self._distributed = distributed
        self._precision = detect_precision(config.precision, distributed.device)
        self._precision.enable_tf32()
        self._schema, self._components = data.schema, data.components
        self._data, self._examples = data, data.examples
        self._dev, self._dev_digest, self._dev_encoded = data.dev, data.dev_digest, data.dev_encoded
        self._compute_diagnostics = data.compute_diagnostics
        self._dev_counts: DocumentCounts | None = None
        self._scored: tuple[list[tuple[Document, Document]], Scores] | None = None
        self._own_share = slice(distributed.rank, None, distributed.size)
        self._pad_id = int(data.context.tokenizer.pad_token_id or 0)

        self._method = load_finetuning(config)
        sharded = config.sharded and distributed.size > 1
        self._model, self._wrapped = self._build_sharded_model() if sharded else self._build_replicated_model(cache)
        sharing = distributed if sharded else None
        self._predictor = Predictor(self._model, self._components, data.context, sharing)
        steps = sum(-(-len(rows) // config.batch_size) for rows in self._examples.values()) * config.epochs
        self._method.start_training(self._model.backbone, steps)
        self._optimizer, self._scheduler = build_optimizer(config, self._method, self._model, steps)
        self._average = MovingAverage(self._model, config.ema_decay) if config.ema_decay else None
        self._scaler = torch.amp.GradScaler(distributed.device.type, enabled=self._precision.scales_gradients)
        self._state = TrainingState(self._model, self._optimizer, self._scheduler, self._average, self._scaler)
        self._steps_done = 0
        self._before_step: Callable[[], None] = lambda: None

    def set_before_step(self, call: Callable[[], None]) -> None:
        """Set a function that is called before each optimizer step and each batch of the dev split."""
        self._before_step = self._predictor.before_batch = call

    def _build_replicated_model(self, cache: ModelCache) -> tuple[ExtractionModel, nn.Module]:
        """Return the model on this process's device, and the wrapper that averages its gradients over processes."""
        device, precision = self._distributed.device, self._precision
        pretrained = cache.get_backbone(self.config, device, precision.dtype)
        model = build_model(
            self.config,
            self._schema,
            pretrained,
            device=device,
            precision=precision,
            recomputation=self._recomputation,
        )
        self._fit_heads(model)
        find_unused = self._distributed.size > 1 and self._has_unused_parameters(model)
        return model, wrap_data_parallel(model, self._distributed, find_unused=find_unused)

    def _has_unused_parameters(self, model: ExtractionModel) -> bool:
        """Return whether some trained weights have no gradient after a batch; equal in all processes."""
        if len(self._components) > 1:  # each batch uses one head
            return True
        ((component, rows),) = self._examples.items()
        device = self._distributed.device
        batch = self._collate(component, rows[:1])
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), model.autocast():
            return bool(find_unused_parameters(model, model.train()(batch)))

    def _build_sharded_model(self) -> tuple[ExtractionModel, nn.Module]:
        """Return the sharded model; a collective operation.

        A process reads its own shards only, unless the backbone's files cannot be memory-mapped.
        """
        config, device = self.config, self._distributed.device
        if not self._method.supports_sharding:
            fail("sharded", f"the weights of {config.finetuning.name} cannot be sharded", allowed="false")
        mesh = self._build_mesh()
        model = build_model(
            config,
            self._schema,
            self._load_backbone(),
            device=device,
            precision=self._precision,
            keep_mapped=True,
            recomputation=self._recomputation,
        )
        self._fit_heads(model)
        shard(model, model.backbone, mesh, self._precision, device)
        return model, model

    def _build_mesh(self) -> DeviceMesh:
        """Return a mesh of the processes that share a sharded model; a collective operation."""
        return build_mesh(self._distributed)

    def _load_backbone(self) -> PreTrainedModel:
        """Return a new backbone in the dtype of its files."""
        return load_backbone(self.config)

    def _fit_heads(self, model: ExtractionModel) -> ExtractionModel:
        for name, formulation in self._components.items():
            formulation.fit_head(model.get_head(name), self._examples[name])
        return model

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; a collective operation.

        Args:
            epoch: 1-based number of the epoch; batches and dropout depend on it and on the seed.

        Returns:
            ``train_loss`` in nats per loss term, ``optimizer_steps`` since the start of the training, and
            ``tokens_per_second`` over all processes.
        """
        config, distributed = self.config, self._distributed
        torch.manual_seed(config.seed * 100_003 + epoch * 101 + distributed.rank)
        started = time.perf_counter()
        self._model.train()
        self._steps_done = self._scheduler.last_epoch
        loss_sum = torch.zeros((), device=distributed.device)  # reading it would wait for each step
        rows: list[Example] = []
        for component, batch in self._data.sample_batches(config, epoch):
            self._before_step()
            examples = [self._examples[component][i] for i in batch]
            loss_sum += self._step(component, examples)
            rows += examples
        total = sum(float(value) for value in distributed.all_gather(float(loss_sum)))
        seconds = time.perf_counter() - started
        tokens = sum(len(row.input_ids) for row in rows)
        return {
            "train_loss": total / sum(row.loss_terms for row in rows),
            "optimizer_steps": float(self._steps_done),
            "tokens_per_second": tokens / seconds,
        }

    def _collate(self, component: str, rows: Sequence[Example]) -> Batch:
        generates = self._components[component].generates
        device = self._distributed.device
        return collate(rows, self._pad_id, device, targets=True, component=component, aligned=generates)

    def _step(self, component: str, rows: list[Example]) -> torch.Tensor:
        """Take one optimizer step on a batch; a collective operation.

        Returns:
            Sum of the loss over this process's share of the batch, a scalar.
        """
        distributed = self._distributed
        terms = sum(row.loss_terms for row in rows)
        share = rows[distributed.rank :: distributed.size]
        starts = range(0, -(-len(rows) // distributed.size), self.micro_batch)  # equally many in every process
        summed = torch.zeros((), device=distributed.device)
        for start in starts:
            part = share[start : start + self.micro_batch]
            last = start == starts[-1]
            with nullcontext() if last else skip_gradient_sync(self._wrapped):
                data = self._collate(component, part or rows[:1])
                with self._model.autocast():
                    loss: torch.Tensor = self._wrapped(data)
                if not part:  # other processes have one more example: join the collective with zero weight
                    loss = loss * 0.0
                # Gradients are averaged over processes; this factor turns that into the mean over the whole batch.
                scaled = loss * (distributed.size / terms)
                penalty = self._method.compute_penalty(self._model.backbone) if last else None
                self._scaler.scale(scaled if penalty is None else scaled + penalty).backward()  # type: ignore[no-untyped-call]
            summed += loss.detach()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRADIENT_NORM)
        self._scaler.step(self._optimizer)  # skips the step if a gradient has overflowed
        self._scaler.update()
        self._steps_done += 1
        if not self._scaler.is_enabled() or bool(norm.isfinite()):
            self._method.after_step(self._model.backbone, self._steps_done)
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        return summed

    def use_scored_weights(self) -> AbstractContextManager[None]:
        """Return a context within which the model holds the weights to score and save: the average, if there is one."""
        return self._average.apply() if self._average is not None else nullcontext()

    def score_dev(self) -> dict[str, float]:
        """Predict and score the dev split, divided between the processes; a collective operation.

        Returns:
            Scores in [0, 1], ``documents_per_second``, diagnostics of the formulations and, for generated answers,
            the rates of malformed answers and hallucinated mentions.
        """
        gold = self._dev[self._own_share]
        first, *further = self._components
        started = time.perf_counter()
        predicted = self._predictor.annotate(gold, self._dev_encoded[first][self._own_share])
        seconds = max(self._distributed.all_gather(time.perf_counter() - started))
        pairs = self._gather_pairs(gold, predicted)
        given = None
        for component in further:  # relations between gold concepts show the share of errors due to concepts
            predicted = self._predictor.annotate_component(
                component, gold, self._dev_encoded[component][self._own_share]
            )
            given = self._gather_pairs(gold, predicted)
        scores = score_task(self.config.task, pairs, given)
        metrics = scores.metrics()
        if pairs:
            metrics["documents_per_second"] = len(pairs) / seconds
            score = "strict_f1" if self.config.selection == "train_loss" else self.config.selection
            counts = scores.counts(score)
            corpora = tuple(get_corpus_name(d) or "" for d in self._dev) if self._schema.corpora else ()
            self._dev_counts = DocumentCounts(score, self._dev_digest, counts, corpora)
            self._scored = pairs, scores.overall
        for name in self._schema.corpora:
            own = score_task(self.config.task, [pair for pair in pairs if get_corpus_name(pair[0]) == name])
            metrics[f"{name}.strict_f1"] = own.metrics()["strict_f1"]
        return metrics | self._diagnostics | self._gather_fault_rates()

    @cached_property
    def _diagnostics(self) -> dict[str, float]:
        """Limits of the formulations on the dev split, which are the same in every epoch."""
        return self._compute_diagnostics()

    def _gather_fault_rates(self) -> dict[str, float]:
        """Return the rates of faults in generated answers since the last call; a collective operation.

        Returns:
            ``malformed_rate`` of answers and ``hallucinated_rate`` of mentions; empty if no answer was generated.
        """
        counts = sum(self._distributed.all_gather(self._predictor.faults), Counter[str]())
        self._predictor.faults = Counter()
        if not counts["answers"]:
            return {}
        return {
            "malformed_rate": counts["malformed"] / counts["answers"],
            "hallucinated_rate": counts["hallucinated"] / max(1, counts["mentions"]),
        }

    def _gather_pairs(self, gold: Sequence[Document], predicted: Sequence[Document]) -> list[tuple[Document, Document]]:
        """Return gold and predicted documents of all processes in the order of the split; a collective operation."""
        parts = self._distributed.all_gather(list(zip(gold, predicted, strict=True)))
        return [parts[i % len(parts)][i // len(parts)] for i in range(len(self._dev))]

    def measure_size(self) -> dict[str, float]:
        """Return ``trainable_parameters`` and ``peak_memory_mb`` of the largest process; a collective operation."""
        trainable = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        peak = max(self._distributed.all_gather(self._distributed.measure_peak_memory_mb()))
        return {"trainable_parameters": float(trainable), "peak_memory_mb": peak}

    def save_best(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write a checkpoint for prediction; a collective operation in which rank 0 writes, one weight at a time.

        Args:
            folder: The folder to replace.
            metrics: Metrics of the epoch.
        """
        with GatheredTensors(select_trained_weights(self._model), self._distributed) as weights:
            if self._distributed.rank == 0:
                errors = ErrorCounts.count(self.config.task, *self._scored) if self._scored is not None else None
                Checkpoint(self.config, self._schema, metrics, self._dev_counts, errors).save(folder, weights)

    def save_state(self, folder: Path, progress: TrainingProgress) -> None:
        """Write the state from which training resumes; a collective operation.

        Args:
            folder: The folder to replace.
            progress: Completed epochs; at least one.
        """
        checkpoint = Checkpoint(self.config, self._schema, progress.history[-1])
        self._state.save(folder, checkpoint, progress, self._distributed)

    def load_initial_weights(self, folder: Path) -> None:
        """Load the weights of a checkpoint of another corpus; its head must not depend on the annotation types.

        Raises:
            InputError: If the weights do not fit the model.
        """
        recover_folder(folder)
        load_weights(self._model, folder)

    def load_state(self, folder: Path) -> TrainingProgress:
        """Load a state that :meth:`save_state` wrote, and return the completed epochs.

        Raises:
            InputError: If the state belongs to another configuration.
        """
        if Checkpoint.read(folder).config != self.config:
            fail(
                str(folder),
                "training state of another configuration",
                allowed="an empty folder",
                remedy="use a separate folder for each configuration",
            )
        return self._state.load(folder)
