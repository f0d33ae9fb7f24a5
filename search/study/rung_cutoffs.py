"""The rungs of a study for its display: the next rung of a trial, and the score that it needs there."""

from __future__ import annotations

from collections.abc import Mapping

from search.config.space_file import SpaceFile
from search.config.stopping import StoppingSettings
from search.tune.rungs import Rungs

__all__ = ["RungCutoffs"]


class RungCutoffs:
    """Rungs that are filled with the epochs of all trials.

    Args:
        file: The space of the study.
        dev_documents: Number of documents of the dev split; None if it is unknown.
    """

    def __init__(self, file: SpaceFile, dev_documents: int | None) -> None:
        settings = StoppingSettings.from_space_file(file, dev_documents)
        algorithm = settings.algorithm
        self._rungs: Rungs | None = None
        if algorithm.scheduler == "asha" and algorithm.grace_seconds is None:
            last = max(settings.epochs, settings.grace_epochs + 1)
            first, factor = settings.grace_epochs, algorithm.reduction_factor
            self._rungs = Rungs(first, factor, last, settings.objectives, settings.limits)

    @property
    def has_rungs(self) -> bool:
        """True if the scheduler compares trials at rungs in epochs."""
        return self._rungs is not None

    def add(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the results of an epoch of a trial."""
        if self._rungs is not None:
            self._rungs.report(str(number), epoch, metrics)

    def describe_next(self, epoch: int) -> str:
        """Return the epoch of the next rung, with the score to reach there if it is known, such as ``9 (0.6120)``.

        Args:
            epoch: Number of finished epochs of the trial.
        """
        found = self._rungs.find_next(epoch) if self._rungs is not None else None
        if found is None:
            return "-"
        time, cutoff = found
        return f"{time:g}" if cutoff is None else f"{time:g} ({cutoff:.4f})"
