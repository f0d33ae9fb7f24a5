"""What happens to a trial's checkpoint and its MLflow run as the trial goes on.

A trial's folder stays until the ledger has the trial's end, so that a driver killed anywhere before can go on with
it. Of the checkpoints the best few stay: a study's disk use is bounded however many trials it has.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Iterable

from clinie_core.config import BEST, LAST, TrialConfig
from clinie_core.modeling.folder_replacement import recover_folder
from search.config.objectives import Objective
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord
from search.storage.home import Home
from search.storage.trial_store import TrialStore
from search.tracking.tracker import Tracker
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult

__all__ = ["CheckpointManager"]


class CheckpointManager(TrialListener):
    """Keeps MLflow and checkpoints in step with the ledger; a :class:`search.tune.searcher.TrialListener`.

    Args:
        ledger: The study.
        tracker: Its runs in MLflow.
        home: Where its trials' folders are.
        objectives: What it optimizes.
        keep: How many of the best trials by each objective keep their checkpoint.
    """

    def __init__(
        self, ledger: Ledger, tracker: Tracker, home: Home, objectives: tuple[Objective, ...], keep: int
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._home = home
        self._objectives = objectives
        self._keep = keep
        url = home.trials_url(ledger.name)
        self._store = TrialStore(url) if url else None
        records = ledger.records()
        self._best: dict[str, list[tuple[float, int]]] = {objective.metric: [] for objective in objectives}
        for record in records:
            if record.state == "complete":
                self._rank(record)
        self._holding = {r.number for r in records if r.state == "complete" and r.checkpoint}

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """Open the trial's run."""
        record = self._ledger.record(number)
        self._tracker.begin(number, config, record.run_id, record.epochs)

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Write the epoch's metrics to the trial's run."""
        self._tracker.epoch(number, result.epoch, result.metrics)

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Close the trial's run, with its checkpoint if it is among the best."""
        folder, record = self._home.trial_folder(self._ledger.name, number), self._ledger.record(number)
        if self._store is not None:
            self._store.fetch(number, folder, parts=(BEST,))
        best = folder / BEST
        recover_folder(best)
        if state == "complete":
            self._rank(record)
        kept = number in self._kept()
        if kept and best.is_dir():  # where it is until MLflow has it
            self._ledger.set_locations(number, {"checkpoint": best.as_uri()})
        assert record.config is not None
        self._tracker.end(
            number,
            state,
            config=record.config,
            reason=reason,
            best=record.metrics,
            best_epoch=record.best_epoch,
            checkpoint=best if best.is_dir() else None,
            keep=kept,
        )

    def on_trial_recorded(self, number: int) -> None:
        """Remove what only a resume would have needed, and the checkpoints of those that this trial has beaten."""
        folder = self._home.trial_folder(self._ledger.name, number)
        shutil.rmtree(folder / LAST, ignore_errors=True)
        if not (folder / BEST).is_dir():  # what is there waits for MLflow's server
            shutil.rmtree(folder, ignore_errors=True)
        if self._store is not None:
            self._store.remove(number)
        kept = self._kept()
        if number in kept:
            self._holding.add(number)
        for beaten in sorted(self._holding - kept):
            self._holding.discard(beaten)
            self._tracker.drop(beaten)

    def remove_stale_files(self, ended: Iterable[int]) -> None:
        """Remove what is left of trials that have ended: a driver may be killed right after it has recorded an end.

        Args:
            ended: Their numbers.
        """
        stored = self._store.list_numbers() if self._store is not None else set()
        for number in ended:
            if number in stored or self._home.trial_folder(self._ledger.name, number).is_dir():
                self.on_trial_recorded(number)

    def mark_interrupted(self, record: TrialRecord) -> None:
        """Mark the run of a trial that a resume will go on with."""
        if record.config is not None and record.run_id is not None:
            self._tracker.end(
                record.number,
                "interrupted",
                config=record.config,
                reason=None,
                best={},
                best_epoch=None,
                checkpoint=None,
                keep=True,
            )

    def _rank(self, record: TrialRecord) -> None:
        """Put a complete trial among the best by each objective, if it is; the best first, of equals the older one."""
        for objective in self._objectives:
            sign = 1 if objective.direction == "maximize" else -1
            best = self._best[objective.metric]
            bisect.insort(best, (-sign * record.metrics[objective.metric], record.number))
            del best[self._keep :]

    def _kept(self) -> set[int]:
        """The complete trials that are among the best by an objective."""
        return {number for best in self._best.values() for _, number in best}
