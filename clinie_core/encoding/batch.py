"""Batches of examples as padded tensors on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clinie_core.encoding.examples import DecodingConstraint, Example

__all__ = ["IGNORE_INDEX", "Batch", "collate"]

IGNORE_INDEX = -100
"""Target of padded positions, which the loss ignores."""


@dataclass(frozen=True)
class Batch:
    """Padded examples on one device.

    Args:
        component: Name of the model's head that processes the batch.
        input_ids: ``[batch, tokens]``.
        attention_mask: ``[batch, tokens]``, 1 for tokens and 0 for padding.
        segments: ``[batch, tokens]``, 1 from the second segment on; None if no row has two segments.
        positions: ``[batch, positions]``, padded with 0.
        lengths: Number of positions of each row.
        targets: ``[batch, positions]`` or ``[batch, 1]``, padded with ``IGNORE_INDEX``; None for prediction.
        spans: ``[spans, 4]``: row, label, first and last position of each gold span.
        constraints: Restriction of each row's generated answer; empty for free generation.
    """

    component: str
    input_ids: Tensor
    attention_mask: Tensor
    segments: Tensor | None
    positions: Tensor
    lengths: tuple[int, ...]
    targets: Tensor | None
    spans: Tensor
    constraints: tuple[DecodingConstraint, ...] = ()

    def position_mask(self) -> Tensor:
        """Return a mask that is True at positions without padding, ``[batch, positions]``."""
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        return torch.arange(self.positions.shape[1], device=self.positions.device) < lengths.unsqueeze(1)


def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    width = max(1, *(len(row) for row in rows))
    if left:
        return torch.tensor([[*[value] * (width - len(row)), *row] for row in rows], dtype=torch.long)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)


def collate(
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device,
    *,
    targets: bool,
    component: str = "",
    left: bool = False,
) -> Batch:
    """Pad examples to the longest one and move them to a device.

    Args:
        examples: The rows of the batch.
        pad_id: Id of the tokenizer's padding token.
        device: The device of the tensors.
        targets: Whether to include gold targets.
        component: Name of the model's head that processes the batch.
        left: Pad on the left, as text generation requires.
    """
    labelled = targets and any(e.targets for e in examples)
    tensors = [
        _pad([e.input_ids for e in examples], pad_id, left=left),
        _pad([[1] * len(e.input_ids) for e in examples], 0, left=left),
        _pad([e.positions for e in examples], 0),
        torch.tensor([(row, *span) for row, e in enumerate(examples) for span in e.spans], dtype=torch.long).view(
            -1, 4
        ),
    ]
    optional = [
        _pad([_build_segment_ids(e) for e in examples], 0) if any(e.second_segment for e in examples) else None,
        _pad([e.targets for e in examples], IGNORE_INDEX) if labelled else None,
    ]
    if device.type == "cuda":  # pinned memory lets the copy overlap with computation
        tensors = [t.pin_memory().to(device, non_blocking=True) for t in tensors]
        optional = [None if t is None else t.pin_memory().to(device, non_blocking=True) for t in optional]
    ids, mask, positions, spans = tensors
    segments, gold = optional
    lengths = tuple(len(e.positions) for e in examples)
    constraints = tuple(e.constraint for e in examples if e.constraint is not None)
    if len(constraints) < len(examples):
        constraints = ()
    return Batch(component, ids, mask, segments, positions, lengths, gold, spans, constraints)


def _build_segment_ids(example: Example) -> list[int]:
    first = example.second_segment or len(example.input_ids)
    return [int(i >= first) for i in range(len(example.input_ids))]
