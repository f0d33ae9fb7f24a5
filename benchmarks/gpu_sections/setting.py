"""Models, data and devices of the GPU benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.trainer import Trainer
from clinie_core.training.training_data import TrainingData

__all__ = ["Setting", "build_trainer", "generate_corpus"]

SEED = 13
ENCODER: dict[str, Any] = {"model_type": "bert", "max_position_embeddings": 512}
ENCODER_SIZES: dict[str, dict[str, Any]] = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    | {"vocab_size": 30_000},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256},
}
DECODER: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 2048}
DECODER_SIZES: dict[str, dict[str, Any]] = {
    "base": {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 8}
    | {"intermediate_size": 2816, "vocab_size": 32_000},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    | {"intermediate_size": 256},
}


@dataclass(frozen=True)
class Setting:
    """Device and size of the work.

    Args:
        fake: Whether a CPU with small models takes the place of the GPU.
        quick: Whether to repeat less.
    """

    fake: bool
    quick: bool

    @property
    def device(self) -> torch.device:
        """The GPU, or the CPU in its place."""
        return torch.device("cpu") if self.fake else torch.device("cuda", 0)

    @property
    def distributed(self) -> DistributedContext:
        """A single process on the device."""
        return DistributedContext(device=self.device)

    @property
    def rounds(self) -> int:
        """Number of measurements of each alternative."""
        return 2 if self.quick or self.fake else 3

    @property
    def steps(self) -> int:
        """Number of optimizer steps of one measurement."""
        if self.fake:
            return 3 if self.quick else 6
        return 10 if self.quick else 30

    def name_device(self) -> str:
        """Return the name of the device."""
        return "CPU" if self.fake else torch.cuda.get_device_name(self.device)

    def synchronize(self) -> None:
        """Wait for the device's pending work."""
        if not self.fake:
            torch.cuda.synchronize(self.device)

    def configure_encoder(self, method: str = "full", *, size: str = "base", **changes: Any) -> TrialConfig:
        """Return a configuration of token classification.

        Args:
            method: Fine-tuning method.
            size: Size of the model on a GPU; a CPU trains the smallest one.
            **changes: Further settings.
        """
        shape = ENCODER | ENCODER_SIZES["tiny" if self.fake and size == "base" else size]
        return self._configure(BackboneSource(name="encoder", scratch=shape), "token_classification", method, changes)

    def configure_decoder(self, method: str = "full", **changes: Any) -> TrialConfig:
        """Return a configuration of generation; see :meth:`configure_encoder`."""
        shape = DECODER | DECODER_SIZES["tiny" if self.fake else "base"]
        return self._configure(BackboneSource(name="decoder", scratch=shape), "generation", method, changes)

    def _configure(
        self, backbone: BackboneSource, formulation: str, method: str, changes: dict[str, Any]
    ) -> TrialConfig:
        generates = formulation == "generation"
        parameters: dict[str, Any] = {"learning_rate": 1e-4} | ({"rank": 8} if "lora" in method else {})
        values: dict[str, Any] = {
            "backbone": backbone,
            "formulation": ComponentChoice(name=formulation, parameters={"instruction": "short"} if generates else {}),
            "finetuning": ComponentChoice(name=method, parameters=parameters),
            "epochs": 10,
            "batch_size": 4 if self.fake else 32,
            "window_tokens": 400 if generates else 256,
            "precision": "float32" if self.fake else "auto",
            "seed": SEED,
        }
        return TrialConfig(**(values | changes))


def generate_corpus(documents: int, dev: int = 1) -> Corpus:
    """Return synthetic notes.

    Args:
        documents: Number of training notes.
        dev: Number of notes of the dev split.
    """
    splits = generate_splits(max(20, 2 * documents, 8 * dev), seed=SEED)
    return Corpus({"train": tuple(splits["train"][:documents]), "dev": tuple(splits["dev"][:dev])})


def build_trainer(
    setting: Setting, config: TrialConfig, *, steps: int, dev: int = 1, micro_batch: int | None = None
) -> Trainer:
    """Return a trainer whose epoch has a given number of steps.

    Args:
        setting: Device of the trainer.
        config: The configuration.
        steps: Optimizer steps per epoch.
        dev: Number of notes of the dev split.
        micro_batch: Windows per forward pass.
    """
    cache, windows = ModelCache(), steps * config.batch_size
    data = TrainingData.encode(config, generate_corpus(windows, dev), cache)
    used = {name: list(rows)[:windows] for name, rows in data.examples.items()}
    corpora = {name: list(rows)[:windows] for name, rows in data.corpora.items()}
    shortened = replace(data, examples=used, corpora=corpora)
    return Trainer(config, shortened, cache, setting.distributed, micro_batch)
