"""Saved state of a running trial: weights, optimizer, schedule, weight average and metrics of past epochs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map_only

from clinie_core.errors import DiskFull, map_disk_full
from clinie_core.modeling.checkpoint import (
    Checkpoint,
    assign_weights,
    check_shapes,
    load_weights,
    select_trained_weights,
)
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.folder_replacement import replace_folder
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.shard_files import ShardReader, sync_file, write_gathered_shards, write_shards
from clinie_core.modeling.sharding import take_shard
from clinie_core.modeling.weight_file import GatheredTensors
from clinie_core.training.optimization import MovingAverage

__all__ = ["TrainingProgress", "TrainingState"]

STATE = "training_state.pt"
SHARDS = "shards"
"""Folder with the large tensors of a sharded model's state; absent if the model was not sharded."""
CONTENT = "content"
MODEL, AVERAGE = "model/", "average/"
"""Prefixes of the names of weights and of averaged weights among the shards."""


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

    def save(
        self, folder: Path, checkpoint: Checkpoint, progress: TrainingProgress, distributed: DistributedContext
    ) -> None:
        """Write the state atomically; a collective operation.

        Each process of a sharded model writes its shards, if all processes see the folder. Otherwise rank 0 gathers
        the state one tensor at a time and writes it.

        Args:
            folder: The folder to replace.
            checkpoint: Configuration, schema and metrics of the trial.
            progress: Completed epochs of the trial.
            distributed: The processes that train together.

        Raises:
            DiskFull: If the disk is full.
        """
        staging = folder.with_name(folder.name + ".staging")
        if distributed.rank == 0:
            shutil.rmtree(staging, ignore_errors=True)
        optimizer = self._optimizer.state_dict()
        average = self._average and (self._average.steps, self._average.values)
        if isinstance(self._model, FSDPModule):
            self._save_shards(staging / SHARDS, distributed)
            weights = GatheredTensors({}, distributed)
            optimizer = tree_map_only(DTensor, lambda _: None, optimizer)
            average = average and (average[0], [])
        else:
            weights = GatheredTensors(select_trained_weights(self._model), distributed)
        content = staging / CONTENT
        with weights:
            if distributed.rank == 0:
                checkpoint.save(content, weights)
        if distributed.rank != 0:
            return
        state = {
            "optimizer": optimizer,
            "scheduler": self._scheduler.state_dict(),
            "average": average,
            "scaler": self._scaler.state_dict(),
            "progress": (progress.history, progress.best_epoch),
        }
        with map_disk_full(folder):
            with (content / STATE).open("wb") as file:
                torch.save(state, file)
            if (staging / SHARDS).is_dir():
                (staging / SHARDS).rename(content / SHARDS)
                for path in (content / STATE, content / SHARDS, content):
                    sync_file(path)
            replace_folder(content, folder)
            shutil.rmtree(staging, ignore_errors=True)

    def _save_shards(self, folder: Path, distributed: DistributedContext) -> None:
        """Write the large tensors of a sharded model to a new folder; a collective operation."""
        if distributed.rank == 0:
            folder.mkdir(parents=True)
        is_shared = distributed.is_shared(folder.parent.parent)  # waits for the new folder
        problem = None
        try:
            if is_shared:
                write_shards(folder, self._list_tensors(), distributed.rank, distributed.size)
            else:
                with GatheredTensors(self._list_tensors(), distributed) as gathered:
                    if distributed.rank == 0:
                        write_gathered_shards(folder, gathered)
        except DiskFull as error:
            problem = str(error)
        problems = list(filter(None, distributed.all_gather(problem)))
        if problems:  # all processes raise the error: none waits for another one
            raise DiskFull(problems[0])

    def _list_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state that are as large as weights, by a name that is unique in the state."""
        found = {f"{MODEL}{name}": tensor for name, tensor in select_trained_weights(self._model).items()}
        names = {id(p): name for name, p in self._model.named_parameters()}
        for parameter, moments in self._optimizer.state.items():
            for key, moment in moments.items():
                if isinstance(moment, DTensor):
                    found[f"{key}/{names[id(parameter)]}"] = moment
        if self._average is not None:
            averages = zip(self._average.parameters, self._average.values, strict=True)
            found |= {f"{AVERAGE}{names[id(parameter)]}": value for parameter, value in averages}
        return found

    def load(self, folder: Path) -> TrainingProgress:
        """Load model, optimizer, schedule and average from a folder, and return the completed epochs.

        The number of processes may differ from that of the processes that wrote the folder.

        Raises:
            InputError: If a file is missing or damaged, or if weights do not match the model.
        """
        state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
        if (folder / SHARDS).is_dir():
            with ShardReader.open(folder / SHARDS) as reader:
                self._load_shards(folder / SHARDS, reader, state)
        else:
            self._load_gathered(folder, state)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        if self._scaler.is_enabled() and state["scaler"]:  # empty if another device has saved the state
            self._scaler.load_state_dict(state["scaler"])
        history, best_epoch = state["progress"]
        return TrainingProgress(tuple(history), best_epoch)

    def _list_trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters in the order of the optimizer's state."""
        names = {id(p): name for name, p in self._model.named_parameters()}
        return [(names[id(p)], p) for group in self._optimizer.param_groups for p in group["params"]]

    def _load_shards(self, folder: Path, reader: ShardReader, state: dict[str, Any]) -> None:
        """Load weights and average, and complete the optimizer's state, from the shards of several processes."""
        own = self._model.state_dict()
        names = reader.list_names(MODEL)
        check_shapes(own, {name: reader.get_shape(MODEL + name) for name in names}, folder)
        weights = {name: reader.read(MODEL + name, own[name]) for name in names if name in own}
        assign_weights(self._model, weights, folder)
        trained = self._list_trained()
        for number, moments in state["optimizer"]["state"].items():
            name, parameter = trained[number]
            empty = [key for key, value in moments.items() if value is None]
            moments.update({key: reader.read(f"{key}/{name}", parameter.detach()) for key in empty})
        if self._average is not None:
            self._average.steps, _ = state["average"]
            by_name = {id(p): name for name, p in trained}
            for parameter, value in zip(self._average.parameters, self._average.values, strict=True):
                value.copy_(reader.read(AVERAGE + by_name[id(parameter)], value))

    def _load_gathered(self, folder: Path, state: dict[str, Any]) -> None:
        """Load weights and average, and shard the optimizer's state, which one process wrote."""
        load_weights(self._model, folder)
        trained = self._list_trained()
        for number, moments in state["optimizer"]["state"].items():
            _, parameter = trained[number]
            moments.update({name: take_shard(moment, parameter) for name, moment in moments.items()})
        if self._average is not None:
            self._average.steps, values = state["average"]
            for own, saved in zip(self._average.values, values, strict=True):
                own.copy_(take_shard(saved, own))
