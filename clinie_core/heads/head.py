"""Base class of task heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from clinie_core.encoding.batch import Batch
from clinie_core.encoding.outputs import HeadOutput, TransitionScores

__all__ = ["TaskHead", "build_feed_forward"]


class TaskHead(nn.Module, ABC):
    """Layers that compute the loss of a batch, and the outputs that its formulation decodes."""

    @abstractmethod
    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of a batch's targets, summed, a scalar.

        Args:
            hidden: Hidden states at the batch's positions, ``[batch, positions, hidden]``.
            batch: A batch with targets or spans.
        """

    @abstractmethod
    def predict(self, hidden: Tensor, batch: Batch) -> Sequence[HeadOutput]:
        """Return the output for each row of the batch.

        Args:
            hidden: Hidden states at the batch's positions, ``[batch, positions, hidden]``.
            batch: A batch; its targets are not used.
        """

    def get_transition_scores(self) -> TransitionScores | None:
        """Return the learned scores between labels; None if the head has none."""
        return None


def build_feed_forward(width: int, out: int, dropout: float, layers: int) -> nn.Sequential:
    """Build hidden layers with GELU and a final linear layer, with dropout before each.

    Args:
        width: Width of the input and of the hidden layers.
        out: Width of the output.
        dropout: Dropout before each layer.
        layers: Number of hidden layers.
    """
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Dropout(dropout), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*modules, nn.Dropout(dropout), nn.Linear(width, out))
