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
        position_mask: ``[batch, positions]``, True at positions without padding.
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
    position_mask: Tensor
    constraints: tuple[DecodingConstraint, ...] = ()


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
    aligned: bool = False,
) -> Batch:
    """Pad examples to the longest one and move them to a device.

    Everything that depends on the examples is computed on the CPU: a device would have to be waited for.

    Args:
        examples: The rows of the batch.
        pad_id: Id of the tokenizer's padding token.
        device: The device of the tensors.
        targets: Whether to include gold targets.
        component: Name of the model's head that processes the batch.
        left: Pad on the left, as text generation requires.
        aligned: Give each row the positions of all rows, sorted, so that a model can select them at once. Targets of
            positions that a row did not have are ``IGNORE_INDEX``.
    """
    labelled = targets and any(e.targets for e in examples)
    labels = [e.targets for e in examples]
    places = [e.positions for e in examples]
    if aligned:
        places, labels = _align(places, labels)
    lengths = tuple(map(len, places))
    tensors = [
        _pad([e.input_ids for e in examples], pad_id, left=left),
        _pad([[1] * len(e.input_ids) for e in examples], 0, left=left),
        _pad(places, 0),
        torch.tensor([(row, *span) for row, e in enumerate(examples) for span in e.spans], dtype=torch.long).view(
            -1, 4
        ),
        torch.arange(max(1, *lengths)) < torch.tensor(lengths).unsqueeze(1),
    ]
    optional = [
        _pad([_build_segment_ids(e) for e in examples], 0) if any(e.second_segment for e in examples) else None,
        _pad(labels, IGNORE_INDEX) if labelled else None,
    ]
    if device.type == "cuda":  # pinned memory lets the copy overlap with computation
        tensors = [t.pin_memory().to(device, non_blocking=True) for t in tensors]
        optional = [None if t is None else t.pin_memory().to(device, non_blocking=True) for t in optional]
    ids, mask, positions, spans, position_mask = tensors
    segments, gold = optional
    constraints = tuple(e.constraint for e in examples if e.constraint is not None)
    if len(constraints) < len(examples):
        constraints = ()
    return Batch(component, ids, mask, segments, positions, lengths, gold, spans, position_mask, constraints)


def _align(
    positions: Sequence[tuple[int, ...]], targets: Sequence[tuple[int, ...]]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the positions of all rows for each row, and the targets at them."""
    union = tuple(sorted({position for row in positions for position in row}))
    known = [dict(zip(row, labels, strict=True)) for row, labels in zip(positions, targets, strict=True)]
    return [union] * len(positions), [tuple(row.get(p, IGNORE_INDEX) for p in union) for row in known]


def _build_segment_ids(example: Example) -> list[int]:
    first = example.second_segment or len(example.input_ids)
    return [int(i >= first) for i in range(len(example.input_ids))]
