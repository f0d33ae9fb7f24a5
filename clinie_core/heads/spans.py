"""Heads that score spans: every pair of first and last position, so that concepts may nest and overlap."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clinie_core.encoding.batch import Batch
from clinie_core.heads.head import TaskHead

__all__ = ["BiaffineHead", "GlobalPointerHead", "QuestionHead", "SpanHead"]

SPANS_PER_POSITION = 2
"""Limit of the spans per position of a row; an untrained head would predict every span."""
IMPOSSIBLE = -1.0e4


class SpanHead(TaskHead):
    """Base class of heads with scores ``[batch, labels, first, last]``; a positive score is a predicted span.

    The loss is the multi-label softmax of Su et al. 2022 (arXiv 2208.03054). It moves the scores of gold spans above
    zero and all others below zero, and needs no class weight for the many negative spans.
    """

    @abstractmethod
    def compute_scores(self, hidden: Tensor) -> Tensor:
        """Compute scores ``[batch, labels, positions, positions]`` from ``[batch, positions, hidden]``."""

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """See :meth:`TaskHead.compute_loss`; the sum is over rows and labels."""
        return _compute_softmax_loss(self.compute_scores(hidden), batch)

    def predict(self, hidden: Tensor, batch: Batch) -> list[NDArray[np.float64]]:
        """Return the predicted spans of each row, ``[spans, 4]``: label, first and last position, score."""
        scores = self.compute_scores(hidden)
        return _select_positive_spans(
            torch.where(_mask_possible_spans(batch), scores, torch.full_like(scores, IMPOSSIBLE)), batch
        )


class GlobalPointerHead(SpanHead):
    """Inner products of rotated queries and keys, with a bias for each label (Su et al. 2022, arXiv 2208.03054).

    Args:
        hidden_size: Width of the hidden states.
        labels: Number of concept types.
        width: Width of queries and keys, even.
        dropout: Dropout before the projection.
    """

    def __init__(self, hidden_size: int, labels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden_size, 2 * width)
        self.bias = nn.Linear(2 * width, 2 * labels)
        self._width = width

    def compute_scores(self, hidden: Tensor) -> Tensor:
        """See :meth:`SpanHead.compute_scores`."""
        projected = self.project(self.dropout(hidden)).float()  # [batch, positions, 2 width]
        query, key = (_rotate(part) for part in projected.chunk(2, dim=-1))
        common = query @ key.transpose(1, 2) / self._width**0.5  # [batch, first, last]
        start, end = (self.bias(projected).float() / 2).chunk(2, dim=-1)  # [batch, positions, labels] each
        scores: Tensor = common.unsqueeze(1) + start.transpose(1, 2).unsqueeze(3) + end.transpose(1, 2).unsqueeze(2)
        return scores


class BiaffineHead(SpanHead):
    """Bilinear form of first and last position for each label (Yu et al. 2020, arXiv 2005.07150).

    Args:
        hidden_size: Width of the hidden states.
        labels: Number of concept types.
        width: Width of the representations of first and last positions.
        dropout: Dropout before each layer.
    """

    def __init__(self, hidden_size: int, labels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.last = (
            nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden_size, width), nn.GELU()) for _ in range(2)
        )
        self.form = nn.Parameter(torch.randn(labels, width + 1, width + 1) * width**-0.5)

    def compute_scores(self, hidden: Tensor) -> Tensor:
        """See :meth:`SpanHead.compute_scores`."""
        one = hidden.new_ones(*hidden.shape[:2], 1)
        first, last = (torch.cat([part(hidden), one], dim=-1).float() for part in (self.first, self.last))
        scores: Tensor = torch.einsum("bid,lde,bje->blij", first, self.form.float(), last)
        return scores


class QuestionHead(SpanHead):
    """Scores of span starts, span ends and matches between them, for the question of each row.

    Args:
        hidden_size: Width of the hidden states.
        width: Width of the representations that are matched, even.
        dropout: Dropout before each layer.

    Source: Li et al. 2020 (arXiv 1910.11476). The match is an inner product, because a network over concatenated
    pairs needs memory for positions squared times width.
    """

    def __init__(self, hidden_size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.edges = nn.Linear(hidden_size, 2)
        self.project = nn.Linear(hidden_size, 2 * width)
        self._width = width

    def _compute_parts(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute start and end scores ``[batch, positions]`` and match scores ``[batch, 1, first, last]``."""
        hidden = self.dropout(hidden)
        start, end = self.edges(hidden).float().unbind(-1)
        query, key = (_rotate(part) for part in self.project(hidden).float().chunk(2, dim=-1))
        return start, end, (query @ key.transpose(1, 2) / self._width**0.5).unsqueeze(1)

    def compute_scores(self, hidden: Tensor) -> Tensor:
        """Compute the minimum of start, end and match scores: a span needs all three."""
        start, end, match = self._compute_parts(hidden)
        return torch.minimum(match, torch.minimum(start[:, None, :, None], end[:, None, None, :]))

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the sum of the losses of starts, ends and matches."""
        start, end, match = self._compute_parts(hidden)
        mask = batch.position_mask
        row, _, first, last = batch.spans.unbind(1)
        total = _compute_softmax_loss(match, batch)
        for scores, at in ((start, first), (end, last)):
            gold = torch.zeros_like(scores).index_put((row, at), scores.new_ones(()))
            losses = nn.functional.binary_cross_entropy_with_logits(scores, gold, reduction="none")
            total = total + (losses * mask).sum()
        return total


def _rotate(states: Tensor) -> Tensor:
    """Apply rotary position embedding to ``[batch, positions, width]`` (Su et al. 2021, arXiv 2104.09864)."""
    width = states.shape[-1]
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=states.device).float() / width)
    angles = torch.arange(states.shape[1], device=states.device).float().unsqueeze(1) * rates  # [positions, width / 2]
    even, odd = states[..., 0::2], states[..., 1::2]
    rotated = torch.stack([even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()], dim=-1)
    return rotated.flatten(-2)


def _mask_possible_spans(batch: Batch) -> Tensor:
    """Return True for pairs of real positions in order, ``[batch, 1, positions, positions]``."""
    mask = batch.position_mask
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
    return pairs.triu().unsqueeze(1)


def _compute_softmax_loss(scores: Tensor, batch: Batch) -> Tensor:
    possible = _mask_possible_spans(batch).expand_as(scores)
    row, label, first, last = batch.spans.unbind(1)
    gold = torch.zeros_like(possible).index_put((row, label, first, last), possible.new_ones(()))
    low = torch.full_like(scores, IMPOSSIBLE)
    wrong = torch.where(possible & ~gold, scores, low).flatten(2)  # [batch, labels, spans]
    right = torch.where(possible & gold, -scores, low).flatten(2)
    zero = scores.new_zeros(*scores.shape[:2], 1)
    terms = [torch.logsumexp(torch.cat([part, zero], dim=-1), dim=-1) for part in (wrong, right)]
    return terms[0].sum() + terms[1].sum()


def _select_positive_spans(scores: Tensor, batch: Batch) -> list[NDArray[np.float64]]:
    """Return the positive spans of each row, best first, up to ``SPANS_PER_POSITION``."""
    found = []
    for row, length in enumerate(batch.lengths):
        part = scores[row]
        label, first, last = (part > 0).nonzero(as_tuple=True)
        values = part[label, first, last]
        best = values.argsort(descending=True)[: SPANS_PER_POSITION * length]
        columns = (label[best].double(), first[best].double(), last[best].double(), values[best].double())
        found.append(torch.stack(columns, dim=1).cpu().numpy())
    return found
