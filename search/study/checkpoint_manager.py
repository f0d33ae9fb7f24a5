"""The checkpoint manager: starts and ends MLflow runs and stores the checkpoints of the best trials.

A trial's folder is removed only after the ledger has recorded the trial's end, so that a resume can continue the trial
if the driver is killed earlier. Only the best trials keep a checkpoint, which bounds the disk space of a study.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Iterable

from clinie_core.config import BEST, LAST, TrialConfig
from clinie_core.modeling.folder_replacement import recover_folder
from search.config.objectives import Objective, describe_violations
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord
from search.storage.home import Home
from search.storage.trial_store import TrialStore
from search.tracking.tracker import Tracker
from search.trials.listener import FinalState, TrialListener

__all__ = ["CheckpointManager"]


class CheckpointManager(TrialListener):
    """Listener that starts and ends MLflow runs and decides which checkpoints are stored.

    It precedes the tracker in the list of listeners, which writes the epochs to the runs.

    Args:
        ledger: Ledger of the study.
        tracker: Writer of the study's MLflow runs.
        home: Home folder with the trials' folders.
        objectives: Objectives of the study.
        keep: Number of best trials per objective that keep their checkpoint.
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
        # Several drivers remove the checkpoints of their own trials; the last one removes the others.
        self._with_checkpoint = set() if ledger.leases is not None else _find_checkpoints(records)

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """Start or resume the trial's MLflow run."""
        record = self._ledger.record(number)
        self._tracker.begin(number, config, record.run_id, record.epochs, resumed=not self._ledger.has_drawn(number))

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """End the trial's MLflow run, and upload its checkpoint if the trial is one of the best."""
        folder, record = self._home.trial_folder(self._ledger.name, number), self._ledger.record(number)
        if self._store is not None:
            self._store.fetch(number, folder, parts=(BEST,))
        best = folder / BEST
        recover_folder(best)
        if state == "complete":
            self._rank(record)
        keep = number in self._list_best()
        if keep and best.is_dir():  # its location until it is uploaded to MLflow
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
            keep=keep,
            usage=record.usage.as_metrics(),
        )

    def on_trial_recorded(self, number: int) -> None:
        """Remove the trial's training state, and the checkpoints of trials that are no longer among the best."""
        folder = self._home.trial_folder(self._ledger.name, number)
        shutil.rmtree(folder / LAST, ignore_errors=True)
        if not (folder / BEST).is_dir():  # otherwise the checkpoint is queued for upload to MLflow
            shutil.rmtree(folder, ignore_errors=True)
        if self._store is not None:
            self._store.remove(number)
        if number in self._list_best():
            self._with_checkpoint.add(number)
        self._drop_outranked()

    def on_trial_end_elsewhere(self, number: int) -> None:
        """Remove the checkpoints of trials that are outranked by a trial of another driver."""
        record = self._ledger.record(number)
        if record.state == "complete":
            self._rank(record)
            self._drop_outranked()

    def end(self) -> None:
        """Remove the checkpoints of all trials that are not among the best; the last driver of a study does."""
        self._with_checkpoint |= _find_checkpoints(self._ledger.records())
        self._drop_outranked()

    def _drop_outranked(self) -> None:
        best = self._list_best()
        for outranked in sorted(self._with_checkpoint - best):
            self._with_checkpoint.discard(outranked)
            self._tracker.drop(outranked)

    def remove_stale_files(self, ended: Iterable[int]) -> None:
        """Remove files of ended trials, which remain if the driver was killed right after it recorded the end.

        Args:
            ended: Numbers of all trials that have ended.
        """
        stored = self._store.list_numbers() if self._store is not None else set()
        for number in ended:
            if number in stored or self._home.trial_folder(self._ledger.name, number).is_dir():
                self.on_trial_recorded(number)

    def on_trial_pause(self, number: int) -> None:
        """Mark the MLflow run of a paused trial."""
        self._mark(self._ledger.record(number), "paused")

    def mark_interrupted(self, record: TrialRecord) -> None:
        """Mark the MLflow run of a trial that can be resumed."""
        if record.run_id is not None:
            self._mark(record, "interrupted")

    def _mark(self, record: TrialRecord, state: str) -> None:
        if record.config is None:
            return
        self._tracker.end(
            record.number,
            state,
            config=record.config,
            reason=None,
            best={},
            best_epoch=None,
            checkpoint=None,
            keep=True,
            usage=record.usage.as_metrics(),
        )

    def _rank(self, record: TrialRecord) -> None:
        """Insert a complete trial into the best trials of each objective; ties rank the older trial first.

        A trial beyond a limit is never promoted, so that its checkpoint is not needed. A finalist is promoted with
        the checkpoint of its first run, and a trial that was not trained has none.
        """
        if record.repeats is not None or record.same_as is not None:
            return
        if describe_violations(self._ledger.limits, record.metrics):
            return
        for objective in self._objectives:
            sign = 1 if objective.direction == "maximize" else -1
            best = self._best[objective.metric]
            bisect.insort(best, (-sign * record.metrics[objective.metric], record.number))
            del best[self._keep :]

    def _list_best(self) -> set[int]:
        """Return the numbers of the trials that are among the best for at least one objective."""
        return {number for best in self._best.values() for _, number in best}


def _find_checkpoints(records: Iterable[TrialRecord]) -> set[int]:
    return {record.number for record in records if record.state == "complete" and record.checkpoint}
