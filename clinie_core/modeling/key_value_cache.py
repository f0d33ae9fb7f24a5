"""Keys and values of a generated answer, in memory that is reserved in advance.

The cache of transformers copies all keys and values of all rows for each token. That takes longer than the attention
itself, and the time of a batch then grows with the number of its rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

__all__ = ["build_cache"]


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # mypy skips the types of transformers
    """Keys and values of one layer, ``[batch, heads, tokens, width]``.

    Args:
        further: Number of tokens that follow the first ones.
    """

    def __init__(self, further: int) -> None:
        super().__init__()
        self._further = further
        self._memory: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._memory = (self._reserve(key_states), self._reserve(value_states))
        assert self._memory is not None
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[..., start:end, :] = states
        self.keys, self.values = (memory[..., :end, :] for memory in self._memory)
        return self.keys, self.values

    def _reserve(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:-2], states.shape[-2] + self._further, states.shape[-1]))


def build_cache(config: PretrainedConfig, further: int) -> DynamicCache | None:
    """Build the cache for a batch of answers.

    Args:
        config: Configuration of a decoder.
        further: Longest answer in tokens.

    Returns:
        An empty cache; None if the decoder needs another kind, such as one for a sliding window.
    """
    cache = DynamicCache(config=config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [ReservedLayer(further) for _ in cache.layers]
    return cache
