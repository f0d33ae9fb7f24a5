"""Head that classifies the relation between two marked concepts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clinie_core.encoding.batch import Batch
from clinie_core.heads.head import TaskHead, build_feed_forward

__all__ = ["PairHead"]

READ = {"cls": (0,), "markers": (1, 2), "both": (0, 1, 2)}
"""Indexes of the positions that are read: 0 opening token, 1 head's marker, 2 tail's marker."""


class PairHead(TaskHead):
    """Classifier of each row from its concatenated hidden states; label 0 means no relation.

    Args:
        hidden_size: Width of the hidden states.
        labels: Number of labels.
        representation: Positions that are read.
        dropout: Dropout before each layer.
        layers: Number of hidden layers.
        none_weight: Weight of label 0 in the loss.

    Source: Baldini Soares et al. 2019 (arXiv 1906.03158) for the representations.
    """

    def __init__(
        self,
        hidden_size: int,
        labels: int,
        representation: Literal["cls", "markers", "both"],
        dropout: float,
        layers: int,
        none_weight: float,
    ) -> None:
        super().__init__()
        self._read = READ[representation]
        width = hidden_size * len(self._read)
        self.classifier = build_feed_forward(width, labels, dropout, layers)
        weights = torch.ones(labels)
        weights[0] = none_weight
        self.register_buffer("weights", weights, persistent=False)

    def compute_scores(self, hidden: Tensor) -> Tensor:
        """Compute scores ``[batch, labels]`` from hidden states ``[batch, 3, hidden]``."""
        out: Tensor = self.classifier(hidden[:, list(self._read)].flatten(1))
        return out.float()

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """See :meth:`TaskHead.compute_loss`."""
        assert batch.targets is not None
        weights = self.weights
        assert isinstance(weights, Tensor)
        scores = self.compute_scores(hidden)
        return nn.functional.cross_entropy(scores, batch.targets[:, 0], weight=weights, reduction="sum")

    def predict(self, hidden: Tensor, batch: Batch) -> list[NDArray[np.float32]]:
        """Return scores ``[labels]`` for each row."""
        return list(self.compute_scores(hidden).cpu().numpy())
