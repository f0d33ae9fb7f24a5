"""Task heads: hidden states to losses and scores.

A head knows neither text nor tokens; it reads hidden states at the positions that its formulation
chose. Losses are sums over positions, so that the trainer can weigh batches by their size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clinie_core.tagging import legal_transitions

__all__ = ["IGNORED", "CrfHead", "LinearHead", "TaskHead"]

IGNORED = -100
"""The target of a padded position."""


class TaskHead(nn.Module, ABC):
    """Scores labels at positions and computes the loss against targets."""

    @abstractmethod
    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[batch, positions, hidden]`` to scores ``[batch, positions, labels]``."""

    @abstractmethod
    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The summed negative log-likelihood of ``targets`` ``[batch, positions]``, a scalar."""

    def transition_scores(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None:
        """Learned start ``[labels]``, transition ``[from, to]`` and end ``[labels]`` scores, if any."""
        return None


class LinearHead(TaskHead):
    """Dropout and one linear layer; labels are independent given the hidden states."""

    def __init__(self, hidden_size: int, labels: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, len(labels))

    def scores(self, hidden: Tensor) -> Tensor:
        """See :meth:`TaskHead.scores`."""
        out: Tensor = self.classifier(self.dropout(hidden))
        return out.float()

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`TaskHead.loss`."""
        return nn.functional.cross_entropy(
            self.scores(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )


class CrfHead(LinearHead):
    """A linear-chain conditional random field over the linear head's scores.

    Illegal BIO transitions are forbidden in training as in decoding. The loss is the sequence
    loss; the trainer's weighting by positions makes it comparable with the linear head's.

    Source: Lafferty, McCallum and Pereira 2001 (ICML); Lample et al. 2016 (NAACL).
    """

    def __init__(self, hidden_size: int, labels: Sequence[str], dropout: float) -> None:
        super().__init__(hidden_size, labels, dropout)
        self.start = nn.Parameter(torch.zeros(len(labels)))
        self.transitions = nn.Parameter(torch.zeros(len(labels), len(labels)))  # [from, to]
        self.end = nn.Parameter(torch.zeros(len(labels)))
        _, between = legal_transitions(labels)
        # A window may own the second half of a concept, so its first label may be I-.
        self.register_buffer("legal", torch.from_numpy(between), persistent=False)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`TaskHead.loss`."""
        with torch.autocast(hidden.device.type, enabled=False):
            scores = self.scores(hidden.float())  # [batch, positions, labels]
            mask = targets != IGNORED  # [batch, positions], True first, padding after
            return (self._partition(scores, mask) - self._path_score(scores, targets, mask)).sum()

    def _legal_transitions(self) -> Tensor:
        legal = self.legal
        assert isinstance(legal, Tensor)
        return self.transitions + legal

    def _path_score(self, scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """The score of the gold path of each row, ``[batch]``."""
        gold = targets.clamp(min=0)
        unary = scores.gather(2, gold.unsqueeze(2)).squeeze(2) * mask  # [batch, positions]
        pairs = self._legal_transitions()[gold[:, :-1], gold[:, 1:]] * mask[:, 1:]
        last = gold.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0)).squeeze(1)  # [batch]
        filled = mask[:, 0]
        return unary.sum(1) + pairs.sum(1) + (self.start[gold[:, 0]] + self.end[last]) * filled

    def _partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Log of the summed exponentiated scores of all paths of each row, ``[batch]``."""
        transitions = self._legal_transitions().unsqueeze(0)  # [1, from, to]
        alpha = self.start + scores[:, 0]  # [batch, labels]
        for i in range(1, scores.shape[1]):
            step = torch.logsumexp(alpha.unsqueeze(2) + transitions, dim=1) + scores[:, i]
            alpha = torch.where(mask[:, i].unsqueeze(1), step, alpha)
        return torch.logsumexp(alpha + self.end, dim=1) * mask[:, 0]

    def transition_scores(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`TaskHead.transition_scores`."""
        start, transitions, end = (p.detach().float().cpu().numpy() for p in (self.start, self.transitions, self.end))
        return start, transitions, end
