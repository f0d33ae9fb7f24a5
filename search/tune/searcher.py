"""The searcher: supplies Ray Tune with configurations from the ledger."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from clinie_core.config import TrialConfig
from search.config.search_space import SearchSpace
from search.ledger.ledger import Ledger
from search.trials.spec import TrialSpec
from search.tune.running_trials import RunningTrials, stop_after_error

__all__ = ["LedgerSearcher"]


class LedgerSearcher(Searcher):
    """Searcher that suggests trials that lost their Tune actor first, then interrupted ones, then new ones.

    It records nothing; see :class:`search.tune.recorder.StudyRecorder`.

    Args:
        ledger: The study.
        space: The search space.
        trials: Number of trials to suggest, including interrupted ones.
        running: Receives each trial that is suggested.
        may_start: Whether another trial may start, from the number of running trials.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        trials: int,
        running: RunningTrials,
        may_start: Callable[[int], bool] = lambda running: True,
    ) -> None:
        super().__init__(metric=ledger.metrics[0], mode="max" if ledger.maximized else "min")
        self._ledger = ledger
        self._space = space
        self._interrupted = [(r.number, r.config) for r in ledger.find_interrupted_trials() if r.config is not None]
        self._remaining = trials
        self._may_start = may_start
        self.running = running

    @property
    def unfinished(self) -> int:
        """Number of trials that have not ended."""
        return self._remaining + len(self.running)

    @stop_after_error
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the Tune configuration of the next trial.

        Returns:
            None if no trial may start yet, or none remains but a running one may still lose its Tune actor;
            ``FINISHED`` if all have ended.
        """
        lost = self.running.pop_lost()
        if lost is not None:
            return TrialSpec.from_config(lost, self.running.config(lost)).to_tune_config()
        if not self._remaining:
            return None if self.running else str(Searcher.FINISHED)
        if not self._may_start(len(self.running)):
            return None
        self._remaining -= 1
        number, config = self._next_trial()
        self.running.add(number, config)
        return TrialSpec.from_config(number, config).to_tune_config()

    def _next_trial(self) -> tuple[int, TrialConfig]:
        if not self._interrupted:
            return self._ledger.ask(self._space)
        number, config = self._interrupted.pop(0)
        self._ledger.resume_trial(number)
        return number, config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """No-op: the recorder records how a trial ends."""

    def save(self, checkpoint_path: str) -> None:
        """No-op: the ledger is the record, and Tune's snapshots lag behind it."""

    def restore(self, checkpoint_path: str) -> None:
        """No-op, as :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune pickles its searcher, and the ledger cannot be pickled."""
        return {}
