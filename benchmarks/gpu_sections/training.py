"""Speed of training, compared with Hugging Face's Trainer on the same batches.

The model FLOPs are those of matrix multiplications without padding, and without any recomputation: six per weight of
the layers and token, those of attention, and six per weight of the language-model head and token of an answer
(Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import torch

from clinie_core.backbones.layer_removal import find_layers
from clinie_core.backbones.transformers_logging import quiet_transformers
from clinie_core.backbones.weights import load_config
from clinie_core.config import TrialConfig
from clinie_core.data.bio_tagging import build_bio_labels
from clinie_core.encoding.batch import IGNORE_INDEX
from clinie_core.encoding.examples import Example
from clinie_core.modeling.precision import detect_precision
from clinie_core.training.trainer import Trainer
from gpu_sections.results import Figure
from gpu_sections.setting import Setting, build_trainer

__all__ = ["find_peak", "measure_decoder_training", "measure_encoder_training"]

PEAK_TERAFLOPS = {
    "B200": 2250,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A40": 150,
    "A30": 165,
    "A10": 125,
    "A10G": 70,
    "RTX 6000 Ada": 364,
    "A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}
"""Dense matrix multiplications in bfloat16 or float16 by device name, from NVIDIA's data sheets; first match counts."""


def measure_encoder_training(setting: Setting) -> list[Figure]:
    """Measure training of an encoder for token classification."""
    return _compare(setting, setting.configure_encoder(), causal=False)


def measure_decoder_training(setting: Setting) -> list[Figure]:
    """Measure training of a decoder for generation."""
    return _compare(setting, setting.configure_decoder(batch_size=4 if setting.fake else 8), causal=True)


def _compare(setting: Setting, config: TrialConfig, *, causal: bool) -> list[Figure]:
    trainer = build_trainer(setting, config, steps=setting.steps)
    batches = [[trainer._examples[name][i] for i in rows] for name, rows in trainer._data.sample_batches(config, 1)]
    examples = [example for batch in batches for example in batch]
    tokens = sum(len(example.input_ids) for example in examples)
    labels = len(build_bio_labels(trainer._schema.concept_types))
    theirs = _BaselineTrainer(setting, config, batches, labels=0 if causal else labels)
    trainer.train_epoch(1)
    theirs.train()
    ours_per_second, theirs_per_second = [], []
    for _ in range(setting.rounds):
        ours_per_second.append(trainer.train_epoch(1)["tokens_per_second"])
        theirs_per_second.append(tokens / theirs.train())
    ours, baseline = statistics.median(ours_per_second), statistics.median(theirs_per_second)
    dtype = str(trainer._precision.dtype).removeprefix("torch.")
    figures = [
        Figure("number format", dtype),
        Figure("clinie", ours, "tokens/s"),
        Figure("clinie, lowest", min(ours_per_second), "tokens/s"),
        Figure("Hugging Face Trainer", baseline, "tokens/s"),
        Figure("ratio to Hugging Face Trainer", ours / baseline),
        Figure("model FLOPs per token", _count_flops(trainer, examples, causal=causal) / tokens / 1e6, "MFLOP"),
    ]
    reached = _count_flops(trainer, examples, causal=causal) / tokens * ours / 1e12
    figures.append(Figure("reached", reached, "TFLOP/s"))
    peak = find_peak(setting.name_device())
    if peak is None:
        figures.append(Figure("model FLOPs utilization", f"not run: the peak of {setting.name_device()} is unknown"))
    else:
        figures.append(Figure("model FLOPs utilization", 100 * reached / peak, "%"))
    return figures


def find_peak(device: str) -> float | None:
    """Return the peak of a device in TFLOP/s; None if the table has no such device, or for a MIG slice of one."""
    words = device.replace("-", " ").split()
    if "MIG" in words:
        return None
    return next((float(peak) for name, peak in PEAK_TERAFLOPS.items() if set(name.split()) <= set(words)), None)


def _count_flops(trainer: Trainer, examples: list[Example], *, causal: bool) -> float:
    """Return the FLOPs of forward and backward passes on examples."""
    config: Any = trainer._model.backbone.config
    _, layers = find_layers(trainer._model.backbone)
    weights = sum(p.numel() for p in layers.parameters() if p.ndim > 1)
    attention = (6 if causal else 12) * int(config.num_hidden_layers) * int(config.hidden_size)
    total = sum(6.0 * weights * len(e.input_ids) + attention * len(e.input_ids) ** 2 for e in examples)
    if causal:
        answers = sum(len(example.positions) for example in examples)
        total += 6.0 * int(config.hidden_size) * int(config.vocab_size) * answers
    return total


class _BaselineTrainer:
    """Hugging Face's Trainer with its default optimizer, on given batches.

    Args:
        setting: Device of the training.
        config: Backbone and settings of the optimizer.
        batches: Batches of one epoch, in order.
        labels: Number of labels of each token; 0 for a causal language model.
    """

    def __init__(self, setting: Setting, config: TrialConfig, batches: list[list[Example]], labels: int) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

        self._setting, self._config = setting, config
        self._batches = [_pad_rows([_convert(row, causal=not labels) for row in batch]) for batch in batches]
        with quiet_transformers():
            settings = load_config(config.backbone)
            if labels:
                settings.num_labels = labels
            kind: Any = AutoModelForTokenClassification if labels else AutoModelForCausalLM
            self._model = kind.from_config(settings)

    def train(self) -> float:
        """Train one epoch and return its seconds, without those of preparing the training."""
        from torch.utils.data import DataLoader
        from transformers import Trainer as HuggingFaceTrainer
        from transformers import TrainerCallback, TrainingArguments

        setting, times = self._setting, [0.0, 0.0]
        batches: Any = self._batches  # a list is a data set, too
        precision = detect_precision(self._config.precision, setting.device)

        class Clock(TrainerCallback):
            def on_epoch_begin(self, *arguments: Any, **named: Any) -> None:
                setting.synchronize()
                times[0] = time.perf_counter()

            def on_epoch_end(self, *arguments: Any, **named: Any) -> None:
                setting.synchronize()
                times[1] = time.perf_counter()

        class FixedBatches(HuggingFaceTrainer):
            def get_train_dataloader(self) -> Any:
                return self.accelerator.prepare(DataLoader(batches, batch_size=None, shuffle=False))

        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                scratch,
                num_train_epochs=1,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                bf16=precision.dtype == torch.bfloat16,
                fp16=precision.dtype == torch.float16,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=setting.fake,
            )
            with quiet_transformers():
                FixedBatches(self._model, arguments, train_dataset=batches, callbacks=[Clock()]).train()
        # accelerate replaces `forward` each time it prepares a model; the replacements would be nested.
        for name in ("forward", "_original_forward"):
            vars(self._model).pop(name, None)
        return times[1] - times[0]


def _convert(example: Example, *, causal: bool) -> tuple[list[int], list[int]]:
    """Return token ids and labels; a causal model compares each label with the token before it."""
    ids = [*example.input_ids, *example.targets[-1:]] if causal else [*example.input_ids]
    labels = [IGNORE_INDEX] * len(ids)
    for position, target in zip(example.positions, example.targets, strict=True):
        labels[position + causal] = target
    return ids, labels


def _pad_rows(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Return a batch of token ids, attention mask and labels."""
    width = max(len(ids) for ids, _ in rows)
    ids = [row + [0] * (width - len(row)) for row, _ in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row, _ in rows]
    labels = [row + [IGNORE_INDEX] * (width - len(row)) for _, row in rows]
    names = ("input_ids", "attention_mask", "labels")
    return {name: torch.tensor(values) for name, values in zip(names, (ids, mask, labels), strict=True)}
