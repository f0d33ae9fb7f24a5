"""Saved state of a running trial: weights, optimizer, schedule, weight average and metrics of past epochs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map_only

from clinie_core.errors import map_disk_full
from clinie_core.modeling.checkpoint import WEIGHTS, Checkpoint, gather_trained_weights, load_weights
from clinie_core.modeling.folder_replacement import replace_folder
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.sharding import gather_full_tensor, take_shard
from clinie_core.training.optimization import MovingAverage

__all__ = ["TrainingProgress", "TrainingState"]

STATE = "training_state.pt"


@dataclass(frozen=True)
class TrainingProgress:
    """Completed epochs of a trial.

    Args:
        history: Metrics of each completed epoch.
        best_epoch: 1-based number of the best epoch; 0 before the first.
    """

    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.history)

    @property
    def best_metrics(self) -> dict[str, float]:
        """Metrics of the best epoch; empty before the first."""
        return self.history[self.best_epoch - 1] if self.best_epoch else {}

    def add_epoch(self, metrics: dict[str, float], *, improved: bool) -> TrainingProgress:
        """Return the progress after one more epoch."""
        return TrainingProgress((*self.history, metrics), self.epoch + 1 if improved else self.best_epoch)


class TrainingState:
    """State of a running trial, which can be saved and loaded.

    Args:
        model: The model.
        optimizer: Its optimizer.
        scheduler: Its learning-rate schedule.
        average: Its weight average, if there is one.
        scaler: Scale of its gradients; without effect if it is disabled.
    """

    def __init__(
        self,
        model: ExtractionModel,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        average: MovingAverage | None,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._average = average
        self._scaler = scaler

    def save(self, folder: Path, checkpoint: Checkpoint, progress: TrainingProgress, *, write: bool) -> None:
        """Write the state atomically; a collective operation, because a sharded state is gathered.

        Args:
            folder: The folder to replace.
            checkpoint: Configuration, schema and metrics of the trial.
            progress: Completed epochs of the trial.
            write: Whether this process writes.

        Raises:
            DiskFull: If the disk is full.
        """
        weights = gather_trained_weights(self._model)
        state = {
            "optimizer": tree_map_only(Tensor, gather_full_tensor, self._optimizer.state_dict()),
            "scheduler": self._scheduler.state_dict(),
            "average": self._average and (self._average.steps, [gather_full_tensor(v) for v in self._average.values]),
            "scaler": self._scaler.state_dict(),
            "progress": (progress.history, progress.best_epoch),
        }
        if not write:
            return
        staging = folder.with_name(folder.name + ".staging")
        shutil.rmtree(staging, ignore_errors=True)
        checkpoint.save(staging, {})
        with map_disk_full(folder):
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, staging / WEIGHTS)
            with (staging / STATE).open("wb") as file:
                torch.save(state, file)
            replace_folder(staging, folder)

    def load(self, folder: Path) -> TrainingProgress:
        """Load model, optimizer, schedule and average from a folder, and return the completed epochs."""
        load_weights(self._model, folder)
        state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for number, moments in state["optimizer"]["state"].items():
            moments.update({name: take_shard(moment, parameters[number]) for name, moment in moments.items()})
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        if self._scaler.is_enabled() and state["scaler"]:  # empty if another device has saved the state
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.steps, values = state["average"]
            for own, saved in zip(self._average.values, values, strict=True):
                own.copy_(take_shard(saved, own))
        history, best_epoch = state["progress"]
        return TrainingProgress(tuple(history), best_epoch)
