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
from search.ledger.records import TrialRecord
from search.trials.job import DEFAULT_CLASS
from search.trials.spec import TrialSpec
from search.tune.running_trials import RunningTrials, stop_after_error

__all__ = ["LedgerSearcher", "ListClasses", "SuggestionGate"]

ListClasses = Callable[[TrialConfig], tuple[str, ...]]


class SuggestionGate:
    """Permission to suggest trials; this one permits all."""

    def is_over(self) -> bool:
        """Return whether the search ends, so that no trial is suggested any more."""
        return False

    def may_start(self) -> bool:
        """Return whether another trial may start."""
        return True

    def must_not_run(self, number: int) -> bool:
        """Return whether a command has stopped or paused a trial."""
        return False


class LedgerSearcher(Searcher):
    """Searcher that suggests trials that lost their Tune actor first, then interrupted ones, then new ones.

    After all of them have ended, it suggests the runs of the finalists. It records nothing; see
    :class:`search.tune.recorder.StudyRecorder`.

    Args:
        ledger: The study.
        space: The search space.
        trials: Number of trials to suggest, including interrupted ones. Runs of finalists are suggested in addition.
        running: Receives each trial that is suggested.
        may_start: Whether another trial may start, from the number of running trials.
        answer: Records a trial with the results of an earlier one that has an identical configuration; None trains
            such a trial.
        list_classes: Returns the names of the resource classes that a trial tries in turn.
    """

    gate: SuggestionGate
    """Decides, for a search that receives commands, which trials may start; set by its trial control."""

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        trials: int,
        running: RunningTrials,
        may_start: Callable[[int], bool] = lambda running: True,
        answer: Callable[[int, TrialConfig, TrialRecord], None] | None = None,
        list_classes: ListClasses = lambda config: (DEFAULT_CLASS,),
    ) -> None:
        super().__init__(metric=ledger.metrics[0], mode="max" if ledger.maximized else "min")
        self._ledger = ledger
        self._space = space
        self._interrupted = [(r.number, r.config) for r in ledger.find_interrupted_trials() if r.config is not None]
        self._remaining = trials + ledger.count_finals(None)
        self._may_start = may_start
        self._answer = answer
        self.find_end: Callable[[], str | None] = lambda: None
        """Function that returns why no further trial is drawn; None if one may be drawn. Finalists run nevertheless."""
        self.ended_because: str | None = None
        """Why no further trial is drawn although the budget has more trials; None if there is no such reason."""
        self._finalists = space.file.final_runs
        self._list_classes = list_classes
        self.running = running
        self.gate = SuggestionGate()

    @property
    def unfinished(self) -> int:
        """Number of trials that have not ended and are not paused.

        It includes the largest number of runs of finalists that may follow.
        """
        finalists = self._finalists
        finals = finalists.most_runs if finalists is not None else 0
        return len(self.running) + (self._remaining + finals if self.gate.may_start() else 0)

    @property
    def interrupted(self) -> tuple[int, ...]:
        """Numbers of the interrupted trials that were not suggested yet."""
        return tuple(number for number, _ in self._interrupted)

    def add_trials(self, count: int) -> None:
        """Suggest more trials than the budget had at the start."""
        self._remaining += count

    def remove_interrupted(self, number: int) -> TrialConfig:
        """Remove an interrupted trial, which is not suggested, and return its configuration."""
        config = dict(self._interrupted)[number]
        self._interrupted = [trial for trial in self._interrupted if trial[0] != number]
        self._remaining -= 1
        return config

    @stop_after_error
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the Tune configuration of the next trial.

        Returns:
            None if no trial may start yet, or none remains but a running one may still lose its Tune actor or a
            paused one may be resumed; ``FINISHED`` if all have ended.
        """
        if self.gate.is_over():
            return str(Searcher.FINISHED)
        lost = self.running.pop_lost()
        if lost is not None:
            self._ledger.resume_trial(lost)  # no-op for a trial that was not paused
            return self._make_tune_config(lost)
        self._check_end()
        while self._has_next():
            if not self.gate.may_start() or not self._may_start(len(self.running)):
                return None
            taken = self._take_next()
            if taken is None:
                break
            number, config = taken
            self.running.add(number, config)
            equal = self._ledger.find_equal(number, config) if self._answer is not None else None
            if equal is None or self._answer is None:
                return self._make_tune_config(number)
            self._answer(number, config, equal)
        return None if self._is_incomplete() else str(Searcher.FINISHED)

    def _has_next(self) -> bool:
        """Return whether a trial is left, or a run of a finalist."""
        return self._remaining > 0 or self._start_finals()

    def _is_incomplete(self) -> bool:
        """Return whether a trial has not ended."""
        return bool(self.running or self.running.paused)

    def _check_end(self) -> None:
        """Leave only trials that have started, and open runs of finalists, if no further trial may be drawn."""
        if self.ended_because is None and self._remaining:
            self.ended_because = self.find_end()
            if self.ended_because is not None:
                started = sum(not self._ledger.is_repeat(number) for number, _ in self._interrupted)
                self._remaining = min(
                    self._remaining, started + self._ledger.count_finals(None) - self._count_running_finals()
                )

    def _count_running_finals(self) -> int:
        return sum(self._ledger.is_repeat(number) for number in self.running.numbers)

    def _start_finals(self) -> bool:
        """Enqueue the runs of the finalists once no other trial is left; return whether there are any."""
        if self.running or self.running.paused or self._finalists is None:
            return False
        self._remaining = self._ledger.enqueue_finals(self._finalists)
        if not self._remaining:
            self._finalists = None
        return self._remaining > 0

    def _make_tune_config(self, number: int) -> dict[str, Any]:
        config, is_repeat = self.running.config(number), self._ledger.is_repeat(number)
        classes = list(self._list_classes(config))
        reached = self._ledger.get_resource_class(number)
        if reached in classes:  # a resumed trial does not fit into the smaller ones
            classes = classes[classes.index(reached) :]
        return TrialSpec.from_config(number, config, tuple(classes), is_repeat=is_repeat).to_tune_config()

    def _take_next(self) -> tuple[int, TrialConfig] | None:
        """Return the next trial; None if another driver has taken it."""
        self._remaining -= 1
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
