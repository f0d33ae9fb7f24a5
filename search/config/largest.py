"""The largest configurations of a space, for each backbone and fine-tuning method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from clinie_core.config import TrialConfig
from search.config.domains import Scalar
from search.config.search_space import SearchSpace

__all__ = ["list_largest_configs", "list_pairs"]


class _LargestChooser:
    """A :class:`search.config.domains.Chooser` that takes the largest number of each dimension.

    Args:
        backbone: Name of the backbone to choose.
        method: Fine-tuning method to choose.
        at: Which of several names to take: the first or the last one.
    """

    def __init__(self, backbone: str, method: str, at: Literal[0, -1]) -> None:
        self._given = {"backbone": backbone, "finetuning": method}
        self._at = at

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`search.config.domains.Chooser.draw_choice`."""
        given = self._given.get(name.partition(".")[0])  # such as finetuning.encoder
        if given in choices:
            return given
        if all(isinstance(choice, bool) for choice in choices):
            return False  # recomputation and sharding reduce memory
        numbers = [choice for choice in choices if isinstance(choice, int | float)]
        return max(numbers) if len(numbers) == len(choices) else choices[self._at]

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`search.config.domains.Chooser.draw_float`."""
        return high

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`search.config.domains.Chooser.draw_int`."""
        return high


def list_pairs(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Yield each backbone of a space with each fine-tuning method that it supports."""
    for source in space.backbones:
        for method in space.list_finetuning_methods(source.name):
            yield source.name, method


def list_largest_configs(space: SearchSpace, backbone: str, method: str) -> list[TrialConfig]:
    """Return one or two configurations that need about the most memory: the largest number of each dimension.

    Of dimensions with other choices, such as the formulation, one configuration has the first and the other one the
    last.

    Args:
        space: The space.
        backbone: Name of the backbone.
        method: The fine-tuning method.
    """
    found: list[TrialConfig] = []
    choices: tuple[Literal[0, -1], ...] = (0, -1)
    for at in choices:
        config = space.suggest(_LargestChooser(backbone, method, at))
        found += [config] if config not in found else []
    return found
