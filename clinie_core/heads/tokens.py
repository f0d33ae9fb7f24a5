"""Heads that score labels at every position: linear and CRF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clinie_core.data.bio_tagging import build_transition_scores
from clinie_core.encoding.batch import IGNORE_INDEX, Batch
from clinie_core.encoding.outputs import TransitionScores
from clinie_core.heads.head import TaskHead, build_feed_forward

__all__ = ["CrfHead", "LinearHead"]


class LinearHead(TaskHead):
    """Feed-forward classifier of each position; labels are independent given the hidden states.

    Args:
        hidden_size: Width of the hidden states.
        labels: Names of the labels.
        dropout: Dropout before each layer.
        layers: Number of hidden layers.
    """

    def __init__(self, hidden_size: int, labels: Sequence[str], dropout: float, layers: int = 0) -> None:
        super().__init__()
        self.classifier = build_feed_forward(hidden_size, len(labels), dropout, layers)

    def compute_scores(self, hidden: Tensor) -> Tensor:
        """Compute scores ``[batch, positions, labels]`` from hidden states ``[batch, positions, hidden]``."""
        out: Tensor = self.classifier(hidden)
        return out.float()

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """See :meth:`TaskHead.compute_loss`."""
        assert batch.targets is not None
        return nn.functional.cross_entropy(
            self.compute_scores(hidden).flatten(0, 1),
            batch.targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )

    def predict(self, hidden: Tensor, batch: Batch) -> list[NDArray[np.float32]]:
        """Return scores ``[positions, labels]`` for each row."""
        scores = self.compute_scores(hidden).cpu().numpy()
        return [row[:length] for row, length in zip(scores, batch.lengths, strict=True)]


class CrfHead(LinearHead):
    """Linear-chain conditional random field over the scores of a linear head.

    Illegal BIO transitions are excluded in training and in decoding. The loss of a sequence counts as one term for
    each position, so it is comparable with the loss of a linear head.

    Source: Lafferty, McCallum and Pereira 2001 (ICML); Lample et al. 2016 (NAACL).
    """

    def __init__(self, hidden_size: int, labels: Sequence[str], dropout: float, layers: int = 0) -> None:
        super().__init__(hidden_size, labels, dropout, layers)
        self.start = nn.Parameter(torch.zeros(len(labels)))
        self.transitions = nn.Parameter(torch.zeros(len(labels), len(labels)))  # [from, to]
        self.end = nn.Parameter(torch.zeros(len(labels)))
        _, between = build_transition_scores(labels)
        # A window may own the second half of a concept, so its first label may be I-.
        self.register_buffer("legal", torch.from_numpy(between), persistent=False)

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """See :meth:`TaskHead.compute_loss`."""
        assert batch.targets is not None
        targets = batch.targets
        with torch.autocast(hidden.device.type, enabled=False):
            scores = self.compute_scores(hidden.float())  # [batch, positions, labels]
            mask = targets != IGNORE_INDEX  # [batch, positions], True first, padding after
            return (self._compute_log_partition(scores, mask) - self._compute_path_score(scores, targets, mask)).sum()

    def _get_legal_transitions(self) -> Tensor:
        legal = self.legal
        assert isinstance(legal, Tensor)
        return self.transitions + legal

    def _compute_path_score(self, scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Compute the score of the gold path of each row, ``[batch]``."""
        gold = targets.clamp(min=0)
        unary = scores.gather(2, gold.unsqueeze(2)).squeeze(2) * mask  # [batch, positions]
        pairs = self._get_legal_transitions()[gold[:, :-1], gold[:, 1:]] * mask[:, 1:]
        last = gold.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0)).squeeze(1)  # [batch]
        filled = mask[:, 0]
        return unary.sum(1) + pairs.sum(1) + (self.start[gold[:, 0]] + self.end[last]) * filled

    def _compute_log_partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Compute the log of the summed exponentiated scores of all paths of each row, ``[batch]``."""
        transitions = self._get_legal_transitions().unsqueeze(0)  # [1, from, to]
        alpha = self.start + scores[:, 0]  # [batch, labels]
        for i in range(1, scores.shape[1]):
            step = torch.logsumexp(alpha.unsqueeze(2) + transitions, dim=1) + scores[:, i]
            alpha = torch.where(mask[:, i].unsqueeze(1), step, alpha)
        return torch.logsumexp(alpha + self.end, dim=1) * mask[:, 0]

    def get_transition_scores(self) -> TransitionScores:
        """See :meth:`TaskHead.get_transition_scores`."""
        # Copy the scores, because a sharded model frees the memory of its parameters.
        start, transitions, end = (
            p.detach().clone().float().cpu().numpy() for p in (self.start, self.transitions, self.end)
        )
        return TransitionScores(start, transitions, end)
