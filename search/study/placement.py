"""The resource class of each trial: the one that its backbone names, or the smallest whose memory holds it."""

from __future__ import annotations

from collections.abc import Callable

from clinie_core.config import TrialConfig
from clinie_core.finetuning import FINETUNING
from search.config.resources import Resources, sort_classes
from search.config.space_file import SpaceFile
from search.study.sizes import ConfigurationSize

__all__ = ["Measure", "Placement"]

Measure = Callable[[TrialConfig, Resources], ConfigurationSize]
"""Returns the size of a configuration in a resource class."""


class Placement:
    """Choice of the resource classes of a space's trials.

    Args:
        file: The space file.
        measure: Estimates the memory of a configuration; not called if the class follows from the file.
    """

    def __init__(self, file: SpaceFile, measure: Measure) -> None:
        self._file = file
        self._measure = measure
        self.classes = sort_classes(file.resources)
        """All classes, the smallest first."""

    def list_classes(self, config: TrialConfig) -> tuple[Resources, ...]:
        """Return the class of a trial, followed by the larger ones, to be tried after a shortage of memory.

        Args:
            config: Configuration of the trial.
        """
        can_shard = FINETUNING.load(config.finetuning.name).supports_sharding
        allowed = [own for own in self.classes if can_shard or not own.sharded]
        name = self._file.get_class_name(config.backbone.name)
        first = self._find_smallest(config, allowed) if name is None else self._find_named(name, allowed)
        return tuple(allowed[first:])

    def list_names(self, config: TrialConfig) -> tuple[str, ...]:
        """Return the names of the classes of :meth:`list_classes`."""
        return tuple(own.name for own in self.list_classes(config))

    def measure(self, config: TrialConfig) -> tuple[Resources, ConfigurationSize]:
        """Return the class of a trial, and its size there."""
        own = self.list_classes(config)[0]
        return own, self._measure(config, own)

    def _find_named(self, name: str, allowed: list[Resources]) -> int:
        """Return the position of a class by its name, or of the next larger one that is allowed."""
        later = {own.name for own in self.classes[[own.name for own in self.classes].index(name) :]}
        return next((i for i, own in enumerate(allowed) if own.name in later), len(allowed) - 1)

    def _find_smallest(self, config: TrialConfig, allowed: list[Resources]) -> int:
        """Return the position of the smallest class whose memory holds a trial, else that of the largest class."""
        last = len(allowed) - 1
        return next((i for i in range(last) if self._measure(config, allowed[i]).fits), last)
