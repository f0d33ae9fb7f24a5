"""The configuration of one trial: frozen values that go to JSON and back and have a digest.

Nothing here imports torch. Which formulations and fine-tuning methods exist is the business of
their tables; a :class:`ComponentChoice` only says which row and with which parameters.
"""

from __future__ import annotations

import hashlib
import json
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
    "FrozenModel",
    "Score",
    "Task",
    "TrialConfig",
    "convert_validation_error",
]


BEST, LAST = "best", "last"
"""Names of a trial's checkpoints: of its best epoch, and of its last one, from which it goes on."""

RENAMED_KEYS = {
    "averaging": "ema_decay",
    "mixing": "sampling_exponent",
    "warmup": "warmup_ratio",
    "layer_decay": "layerwise_lr_decay",
    "depth": "layers_kept",
}
"""Keys of a search space that earlier versions used, and their present names."""


class FrozenModel(BaseModel):
    """A frozen value that refuses unknown keys and goes to JSON and back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """A sha256 over the canonical JSON, in hexadecimal; equal values have equal digests."""
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
"""A dev score. The first six are of the task's own kind (in ``joint``: concepts and relations counted
together); the others are reported by ``joint`` alone."""


class BackboneSource(FrozenModel):
    """Where a pretrained backbone comes from; exactly one of hub, folder, package and scratch.

    Args:
        name: What the space and the ledger call it.
        hub: A model name on the Hugging Face hub.
        revision: Its commit, branch or tag there; the newest if left out.
        folder: A local folder; with ``package``, the folder inside that package.
        package: An installed Python package that carries the model; it is found, not imported.
        gguf: A GGUF file in that folder or package, which is dequantized when it is first used.
        allow_pickle: Whether weights may be a pickle, which can run any code when it is read.
        scratch: Keyword arguments of a transformers configuration, ``model_type`` among them; the
            weights are drawn from the trial's seed.
        tokenizer: The source whose tokenizer to use; None for the backbone's own, which a scratch
            backbone has as a tokenizer of characters that learns nothing from the corpus.
        sha256: File name to the sha256 that it must have, checked before the first trial.
    """

    name: str
    hub: str | None = None
    revision: str | None = None
    folder: str | None = None
    package: str | None = None
    gguf: str | None = None
    allow_pickle: bool = False
    scratch: dict[str, JsonValue] | None = None
    tokenizer: BackboneSource | None = None
    sha256: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        places = [self.hub, self.package or self.folder, self.scratch]
        if sum(place is not None for place in places) != 1:
            raise ValueError("name exactly one of hub, folder, package (with folder) and scratch")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision goes with hub")
        if self.scratch is not None and "model_type" not in self.scratch:
            raise ValueError("scratch needs model_type, for example bert")
        return self


class CorpusView(FrozenModel):
    """How the annotations of a corpus are looked at; kept with a model, so that it is scored as it was trained.

    Args:
        merge_types: New concept type to the corpus types that become it; ``"*"`` stands for all.
        concept_types: The concept types to keep, after merging; all if empty.
        relation_types: The relation types to keep; all if empty.
        descriptions: A type in words, for questions and instructions.
    """

    merge_types: dict[str, list[str]] = Field(default_factory=dict)
    concept_types: list[str] = Field(default_factory=list)
    relation_types: list[str] = Field(default_factory=list)
    descriptions: dict[str, str] = Field(default_factory=dict)


class ComponentChoice(FrozenModel):
    """A row of a table by its name, with parameters for it."""

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class TrialConfig(FrozenModel):
    """Everything that decides what one trial trains, and so what it scores.

    Args:
        task: What is extracted.
        backbone: The pretrained model.
        formulation: How the task becomes model input and output; in ``joint`` how the concepts do, or
            both where the formulation can.
        relation_formulation: In ``joint``, how the relations between predicted concepts are found, by
            a head of its own on the same backbone.
        finetuning: Which weights move, and at which learning rate.
        epochs: Passes over the training split, the whole budget of the trial.
        batch_size: Windows in one optimizer step, over all workers together.
        window_tokens: Longest window in tokens, special tokens included.
        window_overlap: Tokens that neighbouring windows of a long document share.
        weight_decay: AdamW's decay, on matrices only.
        warmup_ratio: Share of all steps, in [0, 1), during which the learning rate rises.
        schedule: How the learning rate falls after the warm-up: to zero in a line or a cosine.
        dropout: Dropout inside the backbone; None keeps the backbone's own.
        ema_decay: Decay per step of an exponential moving average of the trained weights, which
            is then scored and saved instead of them; 0 for none.
        patience: Epochs without a better dev score after which the trial ends; 0 for never.
        seed: Seed of everything random in the trial.
        precision: ``auto`` takes bfloat16 autocast where the processor has it in hardware.
        micro_batch: Windows that a process computes at once; the gradients of a batch add up over as many as it
            takes. None for its whole part of the batch.
        gradient_checkpointing: Whether the backbone's activations are computed again in the backward pass: a third
            more time for a fraction of the memory.
        sharded: Whether the processes of a trial share weights, gradients and optimizer state out between them, for
            a model that does not fit into one (FSDP); the result is the same but for rounding.
        selection: The dev score by which the best epoch is chosen.
        sampling_exponent: Exponent applied to each corpus's size when training examples are drawn from several
            corpora: 1 samples in proportion to size, 0 samples all corpora equally.
        train_documents: How many documents of the training split are trained on; None for all. Fewer ones
            lie within more, and each beginning shows as many types as it can.
        layers_kept: Share of the backbone's layers that are kept, in (0, 1].
        depth_scheme: Which go: the topmost ones, or every so many.
        hard_prompt: Whether each window of an encoder begins with the task in words.
        view: How the corpus's annotations are looked at.
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
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    micro_batch: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    sharded: bool = False
    selection: Score = "strict_f1"
    sampling_exponent: float = Field(default=1.0, ge=0, le=1)
    train_documents: int | None = Field(default=None, ge=1)
    layers_kept: float = Field(default=1.0, gt=0, le=1)
    depth_scheme: Literal["top", "alternate"] = "top"
    hard_prompt: bool = False
    view: CorpusView = CorpusView()

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.window_overlap * 2 > self.window_tokens:
            raise ValueError("window_overlap must be at most half of window_tokens")
        return self

    def flatten(self) -> dict[str, Any]:
        """The configuration by path, ``finetuning.lora.rank`` as in the space and the ledger."""
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
            else:
                flat[key] = value
        return flat


def convert_validation_error(error: ValidationError, where: str, *, quote: bool = True) -> list[Problem]:
    """Turn a validation error of pydantic into problems that name the key path.

    Args:
        error: What pydantic raised.
        where: The file or key path above the validated value.
        quote: Whether a problem says what was found; not where that may be a document's text.
    """
    problems = []
    for item in error.errors(include_url=False, include_context=False):
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
