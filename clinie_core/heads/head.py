"""What every task head does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from clinie_core.encoding.batch import Batch
from clinie_core.encoding.outputs import HeadOutput, TransitionScores

__all__ = ["TaskHead", "build_feed_forward"]


class TaskHead(nn.Module, ABC):
    """Computes the loss of a batch, and what its formulation reads when predicting."""

    @abstractmethod
    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The summed negative log-likelihood of a batch's targets, a scalar.

        Args:
            hidden: Hidden states at the batch's positions, ``[batch, positions, hidden]``.
            batch: With targets or spans.
        """

    @abstractmethod
    def predict(self, hidden: Tensor, batch: Batch) -> Sequence[HeadOutput]:
        """What the formulation reads, one array for each row of the batch."""

    def get_transition_scores(self) -> TransitionScores | None:
        """Learned start ``[labels]``, transition ``[from, to]`` and end ``[labels]`` scores, if any."""
        return None


def build_feed_forward(width: int, out: int, dropout: float, layers: int) -> nn.Sequential:
    """Hidden layers of the same width with GELU, then a linear map; dropout before each."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Dropout(dropout), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*modules, nn.Dropout(dropout), nn.Linear(width, out))
