"""The trial trainable: a Tune actor that submits a trial's jobs to the queue and returns their results to Tune."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.tune import Trainable
from ray.tune.result import DONE
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from search.pool.queue_actor import JobQueueHandle
from search.trials.job import DEFAULT_CLASS, Job, JobEnded
from search.trials.result import EpochResult, TrialFailure
from search.trials.retry import Attempts, next_attempt
from search.trials.spec import TrialSpec

__all__ = ["PoolUnavailable", "RunSettings", "TrialTrainable"]

PAUSE_SECONDS = 0.2
QUEUE_ATTEMPTS = 600
"""Number of calls, two minutes in all, until a trial stops waiting for a queue that is being restarted."""
QUEUE = "queue"
FOLDER = "folder"


class PoolUnavailable(RuntimeError):
    """The pool cannot run a trial's job. The message is its reason and holds no document text."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of all trials of a run, beside each trial's :class:`search.trials.spec.TrialSpec`.

    Args:
        queue: Name of the queue's actor. Tune stores the configuration with every result, and a handle is large.
        trials_folder: Folder for the checkpoints of all trials; None writes none.
    """

    queue: str
    trials_folder: str | None

    def to_tune_config(self) -> dict[str, Any]:
        """Return the settings as entries of a Tune configuration."""
        return {QUEUE: self.queue, FOLDER: self.trials_folder}

    @classmethod
    def from_tune_config(cls, config: dict[str, Any]) -> RunSettings:
        """Read the settings from a Tune configuration."""
        return cls(config[QUEUE], config[FOLDER])

    def trial_folder(self, number: int) -> Path | None:
        """Return the folder for the checkpoints of one trial."""
        return Path(self.trials_folder) / f"{number:05d}" if self.trials_folder else None


class TrialTrainable(Trainable):
    """Tune trainable that trains nothing itself; Tune reuses its actor for many trials.

    A job that fails is submitted again as :func:`search.trials.retry.next_attempt` decides, and resumes from the
    trial's last checkpoint.
    """

    _queue: JobQueueHandle = None

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare for a trial; its job is submitted when Tune requests the first epoch."""
        self._spec, self._settings = TrialSpec.from_tune_config(config), RunSettings.from_tune_config(config)
        self._queue = self._queue or ray.get_actor(self._settings.queue)
        self._job: Job | None = None
        self._last: EpochResult | None = None
        self._attempts = Attempts()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Cancel the current trial's job and prepare for another trial."""
        self._cancel()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch and return it as a Tune result.

        Raises:
            PoolUnavailable: If the pool is closed or its queue is lost.
        """
        while True:
            message = self._next_message()
            last_epoch = self._last.epoch if self._last is not None else 0
            if isinstance(message, EpochResult):
                if message.finished:
                    self._job = None
                if message.finished or message.epoch > last_epoch:  # a resumed job repeats its earlier epochs
                    self._last = replace(message, resource_class=self._spec.classes[self._attempts.moves])
                    return {**self._last.to_tune_result(), DONE: message.finished}
                continue
            self._job = None
            if message.cause == "finished":
                return self._finish()
            if message.cause == "pool_closed":
                raise PoolUnavailable(message.reason)
            decision = next_attempt(
                self._attempts,
                message,
                epoch=last_epoch + 1,
                micro_batch=self._spec.micro_batch,
                can_recompute=self._spec.can_recompute,
                classes=len(self._spec.classes),
            )
            if isinstance(decision, TrialFailure):
                last = self._last.to_tune_result() if self._last is not None else {}
                return {**last, **decision.to_tune_result(), DONE: True}
            self._attempts = decision

    def _finish(self) -> dict[str, Any]:
        """Return the last result of a trial whose job ended without marking an epoch as its last."""
        if self._last is None:
            failure = TrialFailure("failed", "the trial ended before its first epoch")
            return {**failure.to_tune_result(), DONE: True}
        return {**replace(self._last, finished=True).to_tune_result(), DONE: True}

    def _next_message(self) -> EpochResult | JobEnded:
        """Wait for a message from the queue, which may have to be restarted."""
        attempts = Retrying(
            retry=retry_if_exception_type(ray.exceptions.RayActorError),
            stop=stop_after_attempt(QUEUE_ATTEMPTS),  # not a delay, because the first attempt may last an epoch
            wait=wait_fixed(PAUSE_SECONDS),
        )
        try:
            return attempts(self._request_message)
        except RetryError as error:
            cause = type(error.last_attempt.exception()).__name__
            raise PoolUnavailable(f"the job queue was not restarted: {cause}") from None

    def _request_message(self) -> EpochResult | JobEnded:
        """Request the next message about the trial's job, which is submitted first if there is none."""
        try:
            if self._job is not None:
                return ray.get(self._queue.next_report.remote(self._job.id))  # type: ignore[no-any-return]
            self._job = self._make_job()
            return ray.get(self._queue.submit.remote(self._job))  # type: ignore[no-any-return]
        except ray.exceptions.RayActorError:
            self._job = None  # a restarted queue does not have it
            raise

    def _make_job(self) -> Job:
        spec, attempts = self._spec, self._attempts
        own = spec.classes[attempts.moves]
        return Job(
            id=uuid.uuid4().hex,
            number=spec.number,
            config=spec.config,
            backbone=spec.backbone,
            folder=self._settings.trial_folder(spec.number),
            micro_batch=attempts.micro_batch,
            recomputation=attempts.recomputation,
            memory_key=spec.memory_key if own == DEFAULT_CLASS else f"{own}/{spec.memory_key}",
            reduced=attempts.micro_batch is not None,
            resources=own,
        )

    def cleanup(self) -> None:
        """Cancel the job of a trial that Tune ends."""
        self._cancel()

    def _cancel(self) -> None:
        if self._job is not None:
            with suppress(ray.exceptions.RayActorError):  # a queue that was lost has forgotten the job
                ray.get(self._queue.cancel.remote(self._job.id))
            self._job = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """No-op: the worker writes a trial's checkpoints, and a retry finds them in the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """No-op, as :meth:`save_checkpoint`."""
