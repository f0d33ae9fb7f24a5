"""Configuration of one trial: frozen values with a JSON form and a digest.

This module does not import torch. It does not know which formulations and fine-tuning methods exist:
a :class:`ComponentChoice` holds the name of a registry's row and parameters for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from clinie_core.errors import Problem

__all__ = [
    "BEST",
    "LAST",
    "RENAMED_KEYS",
    "BackboneSource",
    "ComponentChoice",
    "CorpusView",
    "Fold",
    "FrozenModel",
    "Score",
    "Selection",
    "Task",
    "TrialConfig",
    "convert_validation_error",
    "rate_epoch",
]


BEST, LAST = "best", "last"
"""Folder names of a trial's two checkpoints: the best epoch, and the last epoch, from which training resumes."""

RENAMED_KEYS = {
    "averaging": "ema_decay",
    "mixing": "sampling_exponent",
    "warmup": "warmup_ratio",
    "layer_decay": "layerwise_lr_decay",
    "depth": "layers_kept",
}
"""Keys of a search space in earlier versions, with their current names."""


class FrozenModel(BaseModel):
    """Base class of frozen values that reject unknown keys and have a JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON as a hexadecimal string; equal values have equal digests."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


Task = Literal["concepts", "relations", "joint"]
Score = Literal[
    "strict_f1",
    "strict_precision",
    "strict_recall",
    "lenient_f1",
    "lenient_precision",
    "lenient_recall",
    "concept_strict_f1",
    "relation_strict_f1",
    "gold_relation_strict_f1",
]
"""Name of a dev score. The first six score the task's annotations (in ``joint``: concepts and relations
together); only ``joint`` reports the others."""
Selection = Score | Literal["train_loss"]
"""Metric that selects a trial's best epoch: the highest dev score, or the lowest training loss."""


class BackboneSource(FrozenModel):
    """Source of a pretrained backbone; exactly one of hub, folder, package and scratch is set.

    Args:
        name: Name in the search space and the ledger.
        hub: Name of a model on the Hugging Face Hub.
        revision: Commit, branch or tag on the Hub; the newest if omitted.
        folder: A local folder; with ``package``, a folder inside that package.
        package: An installed Python package that contains the model; it is located, not imported.
        gguf: Name of a GGUF file in that folder or package; it is dequantized on first use.
        allow_pickle: Whether weights may be a pickle file, which can execute any code when it is read.
        allow_frozen: Whether a method may freeze the random weights of a scratch backbone.
        scratch: Keyword arguments of a transformers configuration, including ``model_type``; the
            weights are initialized with the trial's seed.
        tokenizer: Source of the tokenizer; None for the backbone's own. For a scratch backbone that is a
            character tokenizer, which needs no training.
        sha256: Required sha256 of files, by file name; checked before the first trial.
    """

    name: str
    hub: str | None = None
    revision: str | None = None
    folder: str | None = None
    package: str | None = None
    gguf: str | None = None
    allow_pickle: bool = False
    allow_frozen: bool = False
    scratch: dict[str, JsonValue] | None = None
    tokenizer: BackboneSource | None = None
    sha256: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        places = [self.hub, self.package or self.folder, self.scratch]
        if sum(place is not None for place in places) != 1:
            raise ValueError("set exactly one of hub, folder, package (with folder) and scratch")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision needs hub")
        if self.allow_frozen and self.scratch is None:
            raise ValueError("allow_frozen needs scratch: a pretrained backbone may always be frozen")
        if self.scratch is not None and "model_type" not in self.scratch:
            raise ValueError("scratch needs model_type, for example bert")
        return self


class CorpusView(FrozenModel):
    """Selection and merging of a corpus's annotation types; stored with a model, so that scoring uses the same view.

    Args:
        merge_types: For each new concept type, the corpus types that it replaces; ``"*"`` means all.
        concept_types: Concept types to use, after merging; all if empty.
        relation_types: Relation types to use; all if empty.
        descriptions: Textual description of a type, for questions and instructions.
    """

    merge_types: dict[str, list[str]] = Field(default_factory=dict)
    concept_types: list[str] = Field(default_factory=list)
    relation_types: list[str] = Field(default_factory=list)
    descriptions: dict[str, str] = Field(default_factory=dict)


class ComponentChoice(FrozenModel):
    """Name of a registry's row, with parameters for it."""

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class Fold(FrozenModel):
    """One of several parts of the train and dev documents: it is the dev split, and the others are the train split.

    Args:
        index: 0-based number of the fold.
        number: Number of folds.
        seed: Seed of the division into folds.
        group: Rule that identifies the patient of a document, whose documents are in one fold; None treats each
            document as its own patient.
    """

    index: int = Field(default=0, ge=0)
    number: int = Field(ge=2)
    seed: int = 13
    group: str | None = None

    def __str__(self) -> str:
        return f"{self.index + 1} of {self.number}"


class TrialConfig(FrozenModel):
    """All settings that determine the result of one trial.

    Args:
        task: Annotations to extract.
        backbone: Pretrained model.
        formulation: Conversion of the task into model input and output; in ``joint`` of the concepts, or of
            concepts and relations if the formulation supports both.
        relation_formulation: In ``joint``, the formulation for relations between predicted concepts. It has its
            own head on the same backbone.
        finetuning: Fine-tuning method; selects the trainable weights and their learning rate.
        epochs: Number of passes over the training split.
        batch_size: Windows per optimizer step, summed over all processes.
        window_tokens: Maximum length of a window in tokens, special tokens included.
        window_overlap: Number of tokens that neighbouring windows of a long document share.
        weight_decay: Weight decay of AdamW; applied to matrices only.
        warmup_ratio: Share of all steps, in [0, 1), during which the learning rate rises.
        schedule: Shape of the learning rate's decay to zero after the warm-up.
        dropout: Dropout probability inside the backbone; None for the pretrained model's value.
        ema_decay: Decay per step of an exponential moving average of the trained weights, which
            is then scored and saved instead of them; 0 for none.
        patience: Epochs without a better dev score after which the trial ends; 0 for no limit.
        seed: Seed of all random numbers of the trial.
        precision: Format of matrix multiplications and frozen weights; ``auto`` selects the fastest of the
            device that is safe in training: bfloat16, float16 with scaled gradients, or float32.
        micro_batch: Windows per forward pass in one process; gradients are accumulated over a batch. None for
            the process's whole share of the batch.
        gradient_checkpointing: Whether to recompute the backbone's activations in the backward pass. Takes about a
            third more time and a fraction of the memory.
        sharded: Whether the processes of a trial shard weights, gradients and optimizer state (FSDP), for a model
            that does not fit into one process. Results are equal up to rounding.
        selection: Metric that selects the best epoch.
        sampling_exponent: Exponent applied to each corpus's size when training examples are drawn from several
            corpora: 1 samples in proportion to size, 0 samples all corpora equally.
        train_documents: Number of training documents to use; None for all. Subsets are nested, and each covers as
            many annotation types as possible.
        layers_kept: Share of the backbone's layers that are kept, in (0, 1].
        depth_scheme: Layers to remove: the topmost ones (``top``) or evenly spaced ones (``alternate``).
        hard_prompt: Whether each window of an encoder begins with a description of the task.
        view: Selection and merging of the corpus's annotation types.
        fold: The fold that is the dev split; None for the splits as they were read.
    """

    task: Task = "concepts"
    backbone: BackboneSource
    formulation: ComponentChoice
    relation_formulation: ComponentChoice | None = None
    finetuning: ComponentChoice
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=16, ge=1)
    window_tokens: int = Field(default=256, ge=8)
    window_overlap: int = Field(default=32, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["linear", "cosine"] = "linear"
    dropout: float | None = Field(default=None, ge=0, lt=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    seed: int = 13
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    micro_batch: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    sharded: bool = False
    selection: Selection = "strict_f1"
    sampling_exponent: float = Field(default=1.0, ge=0, le=1)
    train_documents: int | None = Field(default=None, ge=1)
    layers_kept: float = Field(default=1.0, gt=0, le=1)
    depth_scheme: Literal["top", "alternate"] = "top"
    hard_prompt: bool = False
    view: CorpusView = CorpusView()
    fold: Fold | None = None

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.window_overlap * 2 > self.window_tokens:
            raise ValueError("window_overlap must be at most half of window_tokens")
        return self

    def flatten(self) -> dict[str, Any]:
        """Return the settings by key path, such as ``finetuning.lora.rank``, as in the space and the ledger."""
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json").items():
            if key == "backbone":
                flat[key] = self.backbone.name
            elif key in ("formulation", "relation_formulation", "finetuning"):
                if value is not None:
                    flat[key] = value["name"]
                    flat.update({f"{key}.{value['name']}.{k}": v for k, v in value["parameters"].items()})
            elif key == "view":
                flat[key] = json.dumps({k: v for k, v in value.items() if v})
            elif key == "fold":
                flat |= {} if self.fold is None else {key: str(self.fold)}
            else:
                flat[key] = value
        return flat


def rate_epoch(metrics: Mapping[str, float], selection: Selection) -> float:
    """Return a value for the comparison of epochs; the best epoch of a trial is the first with the highest value.

    Args:
        metrics: Metrics of the epoch.
        selection: Metric that selects the best epoch.

    Returns:
        Minus infinity if the metric is missing or not a finite number.
    """
    value = metrics.get(selection, math.nan)
    if not math.isfinite(value):
        return -math.inf
    return -value if selection == "train_loss" else value


def convert_validation_error(error: ValidationError, where: str, *, quote: bool = True) -> list[Problem]:
    """Convert a validation error of pydantic into problems with key paths.

    Args:
        error: The error.
        where: File or key path of the validated value.
        quote: Whether problems quote the invalid value; False where it can be text of a document.
    """
    problems = []
    items = error.errors(include_url=False, include_context=False)
    for item in items:
        below = (other["loc"][: len(item["loc"])] == item["loc"] for other in items if other is not item)
        if item["type"] == "too_short" and any(below):
            continue  # the sequence is too short because its items are invalid
        path = ".".join(str(part) for part in item["loc"])
        joint = ": " if where.endswith((".yaml", ".yml")) or not quote else "."
        place = f"{where}{joint}{path}" if path else where
        quoted = quote and not isinstance(item["input"], (dict, list, BaseModel))
        found = f" (found {item['input']!r})" if quoted else ""
        if item["type"] != "extra_forbidden":
            problems.append(Problem(place, item["msg"].removeprefix("Value error, ") + found))
        elif item["loc"][-1] in RENAMED_KEYS:
            problems.append(Problem(place, "renamed key", remedy=f"write {RENAMED_KEYS[str(item['loc'][-1])]}"))
        else:
            problems.append(Problem(place, "unknown key"))
    return problems
