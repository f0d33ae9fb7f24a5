"""The head of a model that writes its answers: the backbone's own, with what decoding has to know."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinie_core.encoding.batch import Batch
from clinie_core.heads.head import TaskHead

__all__ = ["LanguageHead"]


class LanguageHead(TaskHead):
    """Holds the budget of tokens of an answer; the language model itself is part of the backbone."""

    def __init__(self) -> None:
        super().__init__()
        # Buffers, so that they are saved with the weights.
        self.register_buffer("answer_tokens", torch.tensor(64))
        self.register_buffer("last_token", torch.tensor(0))

    @property
    def budget(self) -> int:
        """Most tokens of an answer."""
        return int(self.get_buffer("answer_tokens"))

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return int(self.get_buffer("last_token"))

    def set_budget(self, tokens: int, eos_id: int) -> None:
        """Set the most tokens of an answer, and the one that ends it."""
        self.get_buffer("answer_tokens").fill_(tokens)
        self.get_buffer("last_token").fill_(eos_id)

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Not supported: :class:`clinie_core.modeling.model.LanguageModel` computes the loss."""
        raise NotImplementedError

    def predict(self, hidden: Tensor, batch: Batch) -> list[NDArray[np.int64]]:
        """Not of this head, as :meth:`compute_loss`."""
        raise NotImplementedError
