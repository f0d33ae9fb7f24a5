"""A trained model on disk: the weights that training changed, the configuration, the schema.

For a PEFT method that is the adapter and the head; for full fine-tuning it is the whole model. The
files are safetensors and JSON and hold no text of any document.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.errors import fail, map_disk_full
from clinie_core.modeling.folder_replacement import recover_folder, replace_folder
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.parallel import distribute_like, gather_full_tensor, local_part
from clinie_core.scoring.document_counts import DocumentCounts

__all__ = ["Checkpoint", "gather_trained_weights", "load_weights"]

WEIGHTS = "model.safetensors"
CONFIG = "clinie.json"
FORMAT = 3


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says beside its weights: the configuration, the schema, the scores on dev, by document too."""

    config: TrialConfig
    schema: Schema
    metrics: Mapping[str, float]
    counts: DocumentCounts | None = None

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the checkpoint in whole: a reader sees the old one or the new one, never a part.

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
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, staging / WEIGHTS)
            (staging / CONFIG).write_text(json.dumps(content, indent=1), encoding="utf-8")
            if self.counts is not None:
                self.counts.write(staging)
            replace_folder(staging, folder)

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read what a checkpoint says of itself.

        Raises:
            InputError: If the folder holds no checkpoint, or one of another format.
        """
        recover_folder(folder)
        file = folder / CONFIG
        if not file.is_file() or not (folder / WEIGHTS).is_file():
            fail(str(folder), "no checkpoint here", allowed=f"a folder with {CONFIG} and {WEIGHTS}")
        link = next((path for path in folder.rglob("*") if path.is_symlink()), None)
        if link is not None:  # a checkpoint may come from elsewhere, and a link may lead anywhere
            fail(
                str(link),
                "a symbolic link in a checkpoint",
                allowed="plain files",
                remedy="copy what it leads to in its place",
            )
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            fail(
                str(file),
                f"checkpoint format {content.get('format')}",
                allowed=f"format {FORMAT}",
                remedy="use the clinie that wrote it",
            )
        config = TrialConfig.model_validate(content["config"])
        return cls(config, Schema.model_validate(content["schema"]), content["metrics"])


def gather_trained_weights(model: ExtractionModel) -> dict[str, Tensor]:
    """The tensors of a model that a pristine backbone does not already hold.

    Trained parameters, the heads, and whatever a method added or replaced, frozen projections
    included: all but the frozen weights that carry on from the backbone. Of a sharded model every process
    must ask, and rank 0 gets them.
    """
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    state = model.state_dict()
    kept: dict[int, tuple[str, Tensor]] = {}  # VeRA's projections are in every layer, and are one tensor
    for name, tensor in state.items():
        if name in trainable or name not in model.pristine_names:
            kept.setdefault(local_part(tensor).data_ptr() or id(tensor), (name, tensor))
    return {name: gather_full_tensor(tensor) for name, tensor in kept.values()}


def load_weights(model: ExtractionModel, folder: Path) -> None:
    """Load a checkpoint's weights into a model of the same configuration.

    Raises:
        InputError: If the checkpoint's tensors are not those that the model trains.
    """
    weights, own = load_file(folder / WEIGHTS), model.state_dict()
    other = [name for name, tensor in weights.items() if name in own and own[name].shape != tensor.shape]
    if other:
        fail(str(folder / WEIGHTS), f"{len(other)} tensors have another shape than the configuration's model")
    parts = {name: distribute_like(tensor, own[name]) if name in own else tensor for name, tensor in weights.items()}
    result = model.load_state_dict(parts, strict=False)
    missing = {name for name, p in model.named_parameters() if p.requires_grad} & set(result.missing_keys)
    if missing or result.unexpected_keys:
        fail(
            str(folder / WEIGHTS),
            f"weights do not fit the configuration: {len(missing)} missing, {len(result.unexpected_keys)} unknown",
            remedy="use the versions of transformers and peft that wrote it",
        )
