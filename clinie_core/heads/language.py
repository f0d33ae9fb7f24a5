"""Head of generative models: limits of the answer; the language-model head itself is part of the backbone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinie_core.encoding.batch import Batch
from clinie_core.heads.head import TaskHead

__all__ = ["LanguageHead"]


class LanguageHead(TaskHead):
    """Longest answer in tokens, and the token that ends an answer."""

    def __init__(self) -> None:
        super().__init__()
        # Buffers are saved with the weights.
        self.register_buffer("answer_tokens", torch.tensor(64))
        self.register_buffer("last_token", torch.tensor(0))

    @property
    def budget(self) -> int:
        """Longest answer in tokens."""
        return int(self.get_buffer("answer_tokens"))

    @property
    def eos_id(self) -> int:
        """Id of the token that ends an answer."""
        return int(self.get_buffer("last_token"))

    def set_budget(self, tokens: int, eos_id: int) -> None:
        """Set the limits of an answer.

        Args:
            tokens: Longest answer in tokens.
            eos_id: Id of the token that ends an answer.
        """
        self.get_buffer("answer_tokens").fill_(tokens)
        self.get_buffer("last_token").fill_(eos_id)

    def compute_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Raise an error: the model computes the loss, see :class:`clinie_core.modeling.model.LanguageModel`.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError

    def predict(self, hidden: Tensor, batch: Batch) -> list[NDArray[np.int64]]:
        """Raise an error: the model generates the answers, see :meth:`compute_loss`.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError
