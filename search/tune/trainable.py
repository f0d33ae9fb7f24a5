"""The trial client: what Tune believes is a trial. It leaves a job on the board and passes reports on."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.tune import Trainable

from clinie_core.config import TrialConfig
from search.pool.queue import CLOSED, Job, JobEnded, JobQueueHandle, Report
from search.trials.result import EPOCH, FAILURE, NO_SPACE

__all__ = ["TRIES", "TrialFailure", "TrialTrainable", "trial_folder"]

TRIES = 3
BOARD_SECONDS = 120.0
PAUSE_SECONDS = 0.2


class TrialFailure(RuntimeError):
    """The pool cannot run a trial's job; the message is its reason and holds no document text."""


class TrialTrainable(Trainable):
    """A thin Tune trainable, reused from trial to trial.

    Its configuration: ``number`` and ``trial_config`` (JSON) from the searcher, ``board`` (the
    actor's name; Tune keeps the configuration with every result, and handles are large) and
    ``folder`` (of all trials; None keeps no checkpoints) from the study.

    A job that ends without an answer is left again and goes on from its last checkpoint. What costs the trial one of
    its :data:`TRIES` is its own failure; a worker that dies with its machine costs nothing, unless as many die in one
    epoch. Where memory was too short the next job computes half as many windows at once; when that is too much as
    well, the trial is infeasible.
    """

    _board: JobQueueHandle = None

    def setup(self, config: dict[str, Any]) -> None:
        """Take a configuration; the job is left when Tune asks for the first epoch."""
        self._board = self._board or ray.get_actor(config["board"])
        self._job: Job | None = None
        self._last: dict[str, Any] = {}
        self._failures = 0
        self._deaths: Counter[int] = Counter()
        self._micro_batch: int | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial."""
        self._cancel()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch.

        Raises:
            TrialFailure: If the pool has closed or its board is gone.
        """
        while True:
            message = self._next_message()
            if isinstance(message, JobEnded) or message.last:
                self._job = None
            if isinstance(message, JobEnded):
                ending = self._ending(message)
                if ending is not None:
                    return {**self._last, **ending, "done": True}
            elif message.last or message.result[EPOCH] > self._last.get(EPOCH, 0):  # else told before
                self._last = message.result
                return {**message.result, "done": message.last}

    def _next_message(self) -> Report | JobEnded:
        """Ask the board, which may have to be started again."""
        deadline = time.monotonic() + BOARD_SECONDS
        while True:
            try:
                if self._job is not None:
                    return ray.get(self._board.next_report.remote(self._job.id))  # type: ignore[no-any-return]
                self._job = self._new_job()
                return ray.get(self._board.submit.remote(self._job))  # type: ignore[no-any-return]
            except ray.exceptions.RayActorError as error:
                self._job = None
                if time.monotonic() > deadline:
                    raise TrialFailure(f"the job board does not come back: {type(error).__name__}") from None
            time.sleep(PAUSE_SECONDS)

    def _ending(self, message: JobEnded) -> dict[str, Any] | None:
        """How the trial ends with its job; None to try again."""
        if message.reason is None:
            return {"finished": True}
        if message.reason == CLOSED:
            raise TrialFailure(CLOSED)
        if message.no_space:
            return {FAILURE: NO_SPACE, "reason": message.reason}
        if message.shortage is not None:
            if self._micro_batch is not None or message.shortage.micro_batch == 1:
                return {FAILURE: "infeasible", "reason": message.reason}
            self._micro_batch = message.shortage.micro_batch // 2
        elif message.lost:
            epoch = int(self._last.get(EPOCH, 0)) + 1
            self._deaths[epoch] += 1
            if self._deaths[epoch] >= TRIES:
                return {FAILURE: "failed", "reason": f"{message.reason}, {TRIES} times in epoch {epoch}"}
        else:
            self._failures += 1
            if self._failures >= TRIES:
                return {FAILURE: "failed", "reason": message.reason}
        return None

    def _new_job(self) -> Job:
        config = self.config
        backbone = TrialConfig.model_validate_json(config["trial_config"]).backbone.name
        number = int(config["number"])
        folder = trial_folder(config.get("folder"), number)
        return Job(uuid.uuid4().hex, number, config["trial_config"], folder, backbone, self._micro_batch)

    def cleanup(self) -> None:
        """Tune ends the trial; its job goes with it."""
        self._cancel()

    def _cancel(self) -> None:
        if self._job is not None:
            with suppress(ray.exceptions.RayActorError):  # a board that is gone has forgotten the job
                ray.get(self._board.cancel.remote(self._job.id))
            self._job = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the worker writes a trial's checkpoints, and a retry finds them in its folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as in :meth:`save_checkpoint`."""


def trial_folder(trials: str | None, number: int) -> Path | None:
    """The folder of one trial's checkpoints within that of all trials."""
    return Path(trials) / f"{number:05d}" if trials else None
