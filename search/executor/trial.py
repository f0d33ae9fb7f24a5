"""The trial client: what Tune believes is a trial. It leaves a job on the board and passes reports on."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from clinie_core.config import TrialConfig
from search.executor.job_board import Ended, Job, JobBoardHandle, Report

__all__ = ["TrialClient", "TrialFailed", "trial_folder"]


class TrialFailed(RuntimeError):
    """A trial's job failed; the message is its reason and holds no document text."""


class TrialClient(Trainable):
    """A thin Tune trainable, reused from trial to trial.

    Its configuration: ``number`` and ``trial_config`` (JSON) from the searcher, ``board`` (the
    actor's name; Tune keeps the configuration with every result, and handles are large) and
    ``folder`` (of all trials; None keeps no checkpoints) from the study.
    """

    _board: JobBoardHandle = None

    def setup(self, config: dict[str, Any]) -> None:
        """Take a configuration; the job is left when Tune asks for the first epoch."""
        self._board = self._board or ray.get_actor(config["board"])
        self._job: Job | None = None
        self._last: dict[str, Any] = {}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial."""
        self._cancel()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch.

        Raises:
            TrialFailed: If the job failed; Tune may retry it, and it then goes on from its last checkpoint.
        """
        if self._job is None:
            self._job = self._new_job()
            call = self._board.submit.remote(self._job)
        else:
            call = self._board.next_report.remote(self._job.id)
        message = ray.get(call)
        if isinstance(message, Ended) or message.last:
            self._job = None
        if isinstance(message, Report):
            self._last = message.result
            return {**message.result, "done": message.last}
        if message.reason is not None:
            raise TrialFailed(message.reason)
        return {**self._last, "finished": True, "done": True}

    def _new_job(self) -> Job:
        config = self.config
        backbone = TrialConfig.model_validate_json(config["trial_config"]).backbone.name
        folder = trial_folder(config.get("folder"), int(config["number"]))
        return Job(uuid.uuid4().hex, int(config["number"]), config["trial_config"], folder, backbone)

    def cleanup(self) -> None:
        """Tune ends the trial; its job goes with it."""
        self._cancel()

    def _cancel(self) -> None:
        if self._job is not None:
            ray.get(self._board.cancel.remote(self._job.id))
            self._job = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the worker writes a trial's checkpoints, and a retry finds them in its folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as in :meth:`save_checkpoint`."""


def trial_folder(trials: str | None, number: int) -> Path | None:
    """The folder of one trial's checkpoints within that of all trials."""
    return Path(trials) / f"{number:05d}" if trials else None
