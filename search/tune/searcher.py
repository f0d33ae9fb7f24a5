"""Ray Tune's way to the ledger: a searcher that asks it, a callback that tells it.

Ray's OptunaSearch tells Optuna that a stopped trial is complete, with the value of its first rung;
here every epoch is reported and a trial ends as what it was. The searcher only suggests. The
callback records, since Tune tells a callback of every result and of every reason, and a searcher
not of the last result of a stopped trial, nor why one failed.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from clinie_core.config import TrialConfig
from clinie_core.errors import DiskFull
from search.config.search_space import SearchSpace
from search.ledger.ledger import Ledger
from search.ledger.records import State
from search.trials.result import EPOCH, FAILURE, NO_SPACE, epoch_metrics

__all__ = ["LedgerSearcher", "StudyRecorder", "TrialListener"]

CLIENT_DEATHS = 20
"""How often the thin process of a trial may die; it goes with its node and has nothing to do with the trial."""


def _keep_first_error(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the first error of a search in its searcher; from then on nothing is drawn or recorded any more.

    Tune turns errors into texts, and may suggest another trial before it ends.
    """

    @functools.wraps(method)
    def call(self: LedgerSearcher | StudyRecorder, *args: Any, **kwargs: Any) -> Any:
        searcher = self if isinstance(self, LedgerSearcher) else self.searcher
        if searcher.error is not None:
            raise searcher.error
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            searcher.error = error
            raise

    return call


class TrialListener(Protocol):
    """Somebody who is told what happens to trials, after the ledger: tracking, the progress display."""

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial begins or goes on."""

    def trial_epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has done an epoch."""

    def trial_ended(self, number: int, state: State, reason: str | None) -> None:
        """A trial has ended so; the ledger is told right after, and until then a resume goes on with the trial."""

    def trial_recorded(self, number: int) -> None:
        """The ledger has a trial's end: nothing of it will be asked for again."""


class LedgerSearcher(Searcher):
    """Suggests what the ledger's sampler asks for, interrupted trials first.

    Args:
        ledger: The study.
        space: What to draw from.
        trials: How many to suggest, interrupted ones among them.
    """

    def __init__(self, ledger: Ledger, space: SearchSpace, trials: int) -> None:
        super().__init__(metric=ledger.metrics[0], mode="max" if ledger.maximized else "min")
        self._ledger = ledger
        self._space = space
        self._interrupted = [record.number for record in ledger.interrupted_trials()]
        self._lost: list[int] = []
        self._losses: Counter[int] = Counter()
        self._left = trials
        self._under_way: set[int] = set()
        self.error: Exception | None = None
        """Why the search could not go on."""

    @_keep_first_error
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Take up a trial; Tune's configuration of it is its number and its configuration as JSON.

        Returns:
            None while no trial is left but one under way may still be lost; ``FINISHED`` when all have ended.
        """
        if not self._lost and not self._left:
            return None if self._under_way else str(Searcher.FINISHED)
        if self._lost:
            number = self._lost.pop(0)
            config = self._ledger.record(number).config
        else:
            self._left -= 1
            if self._interrupted:
                number = self._interrupted.pop(0)
                self._ledger.resume_trial(number)
                config = self._ledger.record(number).config
            else:
                number, config = self._ledger.ask(self._space)
        assert config is not None
        self._under_way.add(number)
        return {"number": number, "trial_config": config.model_dump_json()}

    def mark_ended(self, number: int) -> None:
        """A trial has ended for good."""
        self._under_way.discard(number)

    def mark_lost(self, number: int) -> bool:
        """A trial has lost its thin process, before or after it began, which is not its fault.

        Returns:
            Whether it is suggested again; a trial that this happens to over and over is not.
        """
        self._losses[number] += 1
        if self._losses[number] > CLIENT_DEATHS:
            return False
        self._lost.append(number)
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback records how a trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record, and Tune's snapshots lag behind it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as in :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; the ledger stays out of that."""
        return {}


class StudyRecorder(Callback):
    """Writes what Tune sees into the ledger and passes it on.

    Args:
        ledger: The study.
        searcher: Told how trials end.
        listeners: Who is told after the ledger.
        describe: Turns the error of a failed trial into its reason, without document text; None where its thin
            process was lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        searcher: LedgerSearcher,
        listeners: list[TrialListener],
        describe: Callable[[Trial], str | None],
    ) -> None:
        self._ledger = ledger
        self.searcher = searcher
        self._listeners = listeners
        self._describe = describe
        self._started: set[int] = set()

    @_keep_first_error
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial begins."""
        self._start(trial)

    def _start(self, trial: Trial) -> int:
        number = int(trial.config["number"])
        if number not in self._started:
            self._started.add(number)
            config = TrialConfig.model_validate_json(trial.config["trial_config"])
            for listener in self._listeners:
                listener.trial_started(number, config)
        return number

    @_keep_first_error
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, whatever the scheduler decides on it."""
        number = self._start(trial)
        if EPOCH not in result:
            return  # it failed before its first epoch
        epoch, metrics = int(result[EPOCH]), epoch_metrics(result)
        if not self._ledger.report(number, epoch, metrics):
            return  # a trial that goes on reports what it has behind it
        for listener in self._listeners:
            listener.trial_epoch(number, epoch, metrics)

    @_keep_first_error
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial as complete if it ended by itself, as pruned if it was stopped, as failed if it gave up."""
        last: Mapping[str, Any] = trial.last_result or {}
        number = self._start(trial)
        if last.get(FAILURE) == NO_SPACE:
            raise DiskFull(str(last["reason"]))
        if last.get(FAILURE):
            self._end(trial, last[FAILURE], str(last["reason"]))
        else:
            self._end(trial, *self._ledger.outcome(number, finished=bool(last.get("finished"))))

    @_keep_first_error
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that failed for good, with its reason; one that was lost is suggested again."""
        reason = self._describe(trial)
        if reason is not None or not self.searcher.mark_lost(int(trial.config["number"])):
            self._end(trial, "failed", reason or f"the trial's own process was lost {CLIENT_DEATHS} times")

    def _end(self, trial: Trial, state: State, reason: str | None) -> None:
        number = self._start(trial)
        for listener in self._listeners:  # first, since a trial that has ended takes no further attributes
            listener.trial_ended(number, state, reason)
        self._ledger.end(number, state, reason)
        self.searcher.mark_ended(number)
        for listener in self._listeners:
            listener.trial_recorded(number)
        # Tune keeps every trial that was, and with it statistics of each metric that nobody reads here.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; the ledger stays out of that."""
        return {}
