"""The processes of worker groups: generations, requests for jobs, and the jobs that rank 0 passes to other ranks."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from search.trials.job import Job

__all__ = ["GroupRanks"]


class GroupRanks:
    """Processes of the groups that have joined the job queue."""

    def __init__(self) -> None:
        self._generations: defaultdict[int, int] = defaultdict(int)
        self._requests: defaultdict[int, int] = defaultdict(int)
        self._followers: defaultdict[tuple[int, int, int], asyncio.Queue[Job | None]] = defaultdict(asyncio.Queue)
        self._backbones: defaultdict[int, set[str]] = defaultdict(set)

    def restart(self, group: int) -> int:
        """Register that a group starts; return its new generation, from 1."""
        self._backbones.pop(group, None)
        self._generations[group] += 1
        return self._generations[group]

    def is_current(self, group: int, generation: int) -> bool:
        """Return whether a call comes from the present generation of a group."""
        return self._generations[group] == generation

    def count_request(self, group: int) -> None:
        """Count a request for a job."""
        self._requests[group] += 1

    def get_requests(self, group: int) -> int:
        """Return the number of jobs that a group has requested."""
        return self._requests[group]

    def choose(self, group: int, jobs: list[Job]) -> Job:
        """Return the first job whose backbone a group has loaded, else the first one."""
        loaded = self._backbones[group]
        job = next((job for job in jobs if job.backbone in loaded), jobs[0])
        loaded.add(job.backbone)
        return job

    def pass_on(self, group: int, generation: int, workers: int, job: Job | None) -> None:
        """Pass the job that rank 0 takes to the other ranks."""
        for rank in range(1, workers):
            self._followers[group, generation, rank].put_nowait(job)

    async def follow(self, group: int, generation: int, rank: int) -> Job | None:
        """Wait for the job that rank 0 takes, as another rank."""
        return await self._followers[group, generation, rank].get()
