"""Messages between the worker that trains a job and the Tune actor that has submitted it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from search.trials.job import JobEnded
from search.trials.result import EpochResult

__all__ = ["JobChannels"]


@dataclass
class _Channel:
    reports: asyncio.Queue[EpochResult | JobEnded] = field(default_factory=asyncio.Queue)
    permits: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    """Answers to reports: whether the worker trains another epoch."""


class JobChannels:
    """Channels of the jobs that have not ended, by the id of the job. Messages to any other job are dropped."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def open(self, job_id: str) -> None:
        """Open the channel of a new job."""
        self._channels[job_id] = _Channel()

    def send(self, job_id: str, message: EpochResult | JobEnded) -> None:
        """Send a message to the Tune actor of a job."""
        if job_id in self._channels:
            self._channels[job_id].reports.put_nowait(message)

    def send_to_all(self, message: JobEnded) -> None:
        """Send a message to the Tune actors of all jobs."""
        for channel in self._channels.values():
            channel.reports.put_nowait(message)

    async def report(self, job_id: str, result: EpochResult) -> bool:
        """Send an epoch to the Tune actor and wait for its answer.

        Returns:
            Whether to train another epoch; False at once for the last one and for a job without a channel.
        """
        channel = self._channels.get(job_id)
        if channel is None:
            return False
        channel.reports.put_nowait(result)
        return not result.finished and await channel.permits.get()

    def permit(self, job_id: str) -> None:
        """Let the worker train another epoch."""
        self._channels[job_id].permits.put_nowait(True)

    async def receive(self, job_id: str) -> EpochResult | JobEnded:
        """Wait for a message, as the Tune actor. The last one closes the channel."""
        message = await self._channels[job_id].reports.get()
        if isinstance(message, JobEnded) or message.finished:
            self._channels.pop(job_id, None)
        return message

    def cancel(self, job_id: str) -> None:
        """Close the channel of a job, whose worker ends it at its next report."""
        channel = self._channels.pop(job_id, None)
        if channel is not None:
            channel.permits.put_nowait(False)
