"""Running jobs that a command ends before their next training step, and the waits of their workers for that."""

from __future__ import annotations

import asyncio

__all__ = ["Withdrawals"]


class Withdrawals:
    """Ids of the running jobs that are withdrawn."""

    def __init__(self) -> None:
        self._withdrawn: set[str] = set()
        self._waits: dict[str, asyncio.Event] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._withdrawn

    def add(self, job_id: str) -> None:
        """Withdraw a running job; no-op if it is withdrawn."""
        self._withdrawn.add(job_id)
        if job_id in self._waits:
            self._waits[job_id].set()

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended, and end the wait of its worker."""
        self._withdrawn.discard(job_id)
        waits = self._waits.pop(job_id, None)
        if waits is not None:
            waits.set()

    async def wait(self, job_id: str) -> bool:
        """Wait until a running job is withdrawn or has ended; return whether it was withdrawn."""
        if job_id not in self._withdrawn:
            await self._waits.setdefault(job_id, asyncio.Event()).wait()
        return job_id in self._withdrawn
