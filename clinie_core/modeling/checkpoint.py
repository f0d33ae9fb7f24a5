"""Checkpoint of a trained model: the weights that training changed, the configuration and the schema.

For a PEFT method these weights are the adapter and the heads; for full fine-tuning the whole model. The
files are safetensors and JSON and contain no text of a document.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import fail, map_disk_full
from clinie_core.modeling.folder_replacement import recover_folder, replace_folder
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.sharding import take_shard
from clinie_core.modeling.weight_file import GatheredTensors, write_tensors
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.error_counts import ErrorCounts

__all__ = [
    "Checkpoint",
    "assign_weights",
    "check_shapes",
    "is_fully_trained",
    "load_weights",
    "select_trained_weights",
]

WEIGHTS = "model.safetensors"
CONFIG = "clinie.json"
FORMAT = 3


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint other than its weights.

    Args:
        config: Configuration of the trial.
        schema: Annotation types of the training corpus.
        metrics: Metrics of the saved epoch.
        counts: Counts of correct and wrong predictions for each dev document. :meth:`read` leaves them None.
        errors: Counts of its errors on dev. :meth:`read` leaves them None.
    """

    config: TrialConfig
    schema: Schema
    metrics: Mapping[str, float]
    counts: DocumentCounts | None = None
    errors: ErrorCounts | None = None

    def save(self, folder: Path, weights: GatheredTensors) -> None:
        """Write the checkpoint to a folder atomically.

        Args:
            folder: The folder to replace.
            weights: Weights by name in the model's ``state_dict``; they are gathered one at a time.

        Raises:
            DiskFull: If the disk is full.
        """
        staging = folder.with_name(folder.name + ".new")
        shutil.rmtree(staging, ignore_errors=True)
        content = {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "schema": self.schema.model_dump(mode="json"),
            "metrics": dict(self.metrics),
        }
        with map_disk_full(folder):
            staging.mkdir(parents=True)
            write_tensors(staging / WEIGHTS, weights)
            (staging / CONFIG).write_text(json.dumps(content, indent=1), encoding="utf-8")
            if self.counts is not None:
                self.counts.write(staging)
            if self.errors is not None:
                self.errors.write(staging)
            replace_folder(staging, folder)

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read a checkpoint without its weights.

        Raises:
            InputError: If the folder holds no checkpoint, a symbolic link, or a checkpoint of another format.
        """
        recover_folder(folder)
        file = folder / CONFIG
        if not file.is_file() or not (folder / WEIGHTS).is_file():
            fail(str(folder), "no checkpoint here", allowed=f"a folder with {CONFIG} and {WEIGHTS}")
        link = next((path for path in folder.rglob("*") if path.is_symlink()), None)
        if link is not None:  # a checkpoint may come from an untrusted source
            fail(
                str(link),
                "a symbolic link in a checkpoint",
                allowed="plain files",
                remedy="replace the link by a copy of its target",
            )
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            fail(
                str(file),
                f"checkpoint format {content.get('format')}",
                allowed=f"format {FORMAT}",
                remedy="use the version of clinie that wrote it",
            )
        config = TrialConfig.model_validate(content["config"])
        return cls(config, Schema.model_validate(content["schema"]), content["metrics"])


def select_trained_weights(model: ExtractionModel) -> dict[str, Tensor]:
    """Return the tensors of a model that are not in its pretrained backbone.

    These are the trained parameters, the heads and all tensors that a method added or replaced, frozen ones included.
    """
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    state = model.state_dict(keep_vars=True)
    selected: dict[int, tuple[str, Tensor]] = {}  # the projections of VeRA are one tensor, which is part of every layer
    for name, tensor in state.items():
        if name in trainable or name not in model.pretrained_names:
            # Processes must select the same parameters, even if their shards are empty.
            key = id(tensor) if isinstance(tensor, nn.Parameter) else tensor.data_ptr() or id(tensor)
            selected.setdefault(key, (name, tensor.detach()))
    return dict(selected.values())


def is_fully_trained(model: ExtractionModel) -> bool:
    """Return whether a model's checkpoint has all its tensors, so that it does not need the pretrained weights."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    state = model.state_dict(keep_vars=True)
    return all(id(state[name]) in trained for name in model.pretrained_names)


def load_weights(model: ExtractionModel, folder: Path, *, complete: bool = False) -> None:
    """Load a checkpoint's weights into a model of the same configuration.

    Args:
        model: The model.
        folder: The checkpoint.
        complete: Whether the checkpoint must have all tensors of the model, not only those that are trained.

    Raises:
        InputError: If names or shapes of the checkpoint's tensors do not match the model, or some are missing.
    """
    own, file = model.state_dict(), folder / WEIGHTS
    weights = load_file(file)
    check_shapes(own, {name: tensor.shape for name, tensor in weights.items()}, file)
    parts = {name: take_shard(tensor, own[name]) if name in own else tensor for name, tensor in weights.items()}
    if complete:
        state = model.state_dict(keep_vars=True)
        loaded = {id(state[name]) for name in weights if name in state}  # a tied weight has several names
        missing = [name for name, tensor in state.items() if id(tensor) not in loaded]
        if missing:
            fail(str(file), f"{len(missing)} tensors of the model are missing", remedy="register the model again")
    assign_weights(model, parts, file)


def check_shapes(own: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], place: Path) -> None:
    """Check that saved tensors have the shapes of a model's own.

    Args:
        own: The model's ``state_dict``.
        shapes: Shapes of the saved tensors.
        place: The file or folder with them, for the error message.

    Raises:
        InputError: If a shape differs.
    """
    mismatched = [name for name, shape in shapes.items() if name in own and own[name].shape != shape]
    if mismatched:
        fail(str(place), f"{len(mismatched)} tensors differ in shape from the configured model")


def assign_weights(model: ExtractionModel, weights: Mapping[str, Tensor], place: Path) -> None:
    """Copy weights into a model.

    Args:
        model: The model.
        weights: Weights by name in the model's ``state_dict``, sharded like the model.
        place: The file or folder from which they were read, for the error message.

    Raises:
        InputError: If names do not match the model.
    """
    result = model.load_state_dict(weights, strict=False)
    missing = {name for name, p in model.named_parameters() if p.requires_grad} & set(result.missing_keys)
    if missing or result.unexpected_keys:
        fail(
            str(place),
            f"weights do not match the configuration: {len(missing)} missing, {len(result.unexpected_keys)} unknown",
            remedy="use the versions of transformers and peft that wrote it",
        )
