"""Chooser that draws the values of a configuration with an Optuna trial."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import Trial

from search.config.domains import Scalar

__all__ = ["TrialChooser"]


class TrialChooser:
    """A :class:`search.config.domains.Chooser` that draws with an Optuna trial."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def draw_choice(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """See :meth:`search.config.domains.Chooser.draw_choice`."""
        return self._trial.suggest_categorical(name, list(choices))

    def draw_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """See :meth:`search.config.domains.Chooser.draw_float`."""
        return self._trial.suggest_float(name, low, high, log=log)

    def draw_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """See :meth:`search.config.domains.Chooser.draw_int`."""
        return self._trial.suggest_int(name, low, high, log=log)
