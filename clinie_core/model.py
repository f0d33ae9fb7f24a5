"""A model for extraction: backbone, fine-tuning method and task head in one module.

``forward`` is the training loss, so that a distributed wrapper sees every gradient.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clinie_core.config import TrialConfig
from clinie_core.finetuning import FINETUNING
from clinie_core.finetuning.method import FineTuning
from clinie_core.formulations import FORMULATIONS
from clinie_core.formulations.formulation import Example, Formulation
from clinie_core.heads import IGNORED, TaskHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Batch", "ExtractionModel", "build_model", "collate", "finetuning_of", "formulation_of"]

# peft 0.21 asks transformers 5 for a property under its old name; the user can do nothing about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


@dataclass(frozen=True)
class Batch:
    """Padded examples on one device.

    Args:
        input_ids: ``[batch, tokens]``.
        attention_mask: ``[batch, tokens]``, 1 for tokens and 0 for padding.
        positions: ``[batch, positions]``, padded with 0.
        targets: ``[batch, positions]``, padded with ``IGNORED``; None when predicting.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    targets: Tensor | None


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)


def collate(examples: Sequence[Example], pad_id: int, device: torch.device, *, targets: bool) -> Batch:
    """Pad examples to the longest of them and bring them to a device."""
    tensors = [
        _padded([e.input_ids for e in examples], pad_id),
        _padded([[1] * len(e.input_ids) for e in examples], 0),
        _padded([e.positions for e in examples], 0),
        *([_padded([e.targets for e in examples], IGNORED)] if targets else []),
    ]
    if device.type == "cuda":  # pinned memory lets the copy run beside the computation
        tensors = [t.pin_memory().to(device, non_blocking=True) for t in tensors]
    return Batch(tensors[0], tensors[1], tensors[2], tensors[3] if targets else None)


class ExtractionModel(nn.Module):
    """Backbone and head.

    Args:
        backbone: What a fine-tuning method made of a pretrained model.
        head: The task head.
    """

    def __init__(self, backbone: nn.Module, head: TaskHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def _hidden(self, batch: Batch) -> Tensor:
        """Hidden states at the batch's positions, ``[batch, positions, hidden]``."""
        states = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        index = batch.positions.unsqueeze(2).expand(-1, -1, states.shape[2])  # [batch, positions, hidden]
        return torch.gather(states, 1, index)

    def forward(self, batch: Batch) -> Tensor:
        """The loss summed over the batch's targets, a scalar."""
        assert batch.targets is not None
        return self.head.loss(self._hidden(batch), batch.targets)

    def scores(self, batch: Batch) -> Tensor:
        """Scores ``[batch, positions, labels]``."""
        return self.head.scores(self._hidden(batch))


def formulation_of(config: TrialConfig) -> Formulation:
    """The configuration's formulation, its parameters validated."""
    return FORMULATIONS.load(config.formulation.name).model_validate(config.formulation.parameters)


def finetuning_of(config: TrialConfig) -> FineTuning:
    """The configuration's fine-tuning method, its parameters validated."""
    return FINETUNING.load(config.finetuning.name).model_validate(config.finetuning.parameters)


def build_model(config: TrialConfig, labels: Sequence[str], pristine: PreTrainedModel) -> ExtractionModel:
    """Build a model from a configuration.

    Args:
        config: The trial's configuration; its seed draws every new weight.
        labels: The formulation's label names.
        pristine: The backbone's weights; they are never changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = finetuning_of(config)
        backbone = _copy(pristine, share_weights=method.freezes_backbone)
        head = formulation_of(config).build_head(int(backbone.config.hidden_size), labels)
        return ExtractionModel(method.apply(backbone), head)


def _copy(pristine: PreTrainedModel, *, share_weights: bool) -> PreTrainedModel:
    """Copy a model's modules and either its weights too or only references to them.

    A shared weight is a parameter of its own on the same memory: moving it to a GPU, unfreezing or
    replacing it leaves the pristine one alone, and only writing into it in place would not.
    """
    memo: dict[int, object] = {}
    if share_weights:
        memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in pristine.parameters()}
    return copy.deepcopy(pristine, memo)
