"""The waiting and running jobs of a job queue, with indexes: no operation looks through all jobs.

Plain Python, without Ray and asyncio.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict

from search.trials.job import Job

__all__ = ["JobTable"]


class JobTable:
    """Jobs by their id, by their trial and by the group that trains them."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, Job] = OrderedDict()
        """Jobs that no group has, the oldest first."""
        self.running: dict[int, Job] = {}
        """Jobs by the group that trains them."""
        self.counts: Counter[str] = Counter()
        """Number of waiting and running jobs, by resource class."""
        self.waiting_counts: Counter[str] = Counter()
        """Number of waiting jobs, by resource class."""
        self._groups: dict[str, int] = {}
        self._trials: defaultdict[int, dict[str, Job]] = defaultdict(dict)
        self._training: Counter[int] = Counter()

    def add(self, job: Job) -> None:
        """Add a waiting job."""
        self.waiting[job.id] = job
        self.counts[job.resources] += 1
        self.waiting_counts[job.resources] += 1
        self._trials[job.number][job.id] = job

    def remove(self, job_id: str) -> None:
        """Remove a waiting job; no-op for any other id."""
        job = self.waiting.pop(job_id, None)
        if job is not None:
            self.waiting_counts[job.resources] -= 1
            self._forget(job)

    def start(self, job: Job, group: int) -> None:
        """Move a waiting job to a group.

        Args:
            job: The job as the group receives it; its settings may differ from those of the waiting one.
            group: The group.
        """
        del self.waiting[job.id]
        self.waiting_counts[job.resources] -= 1
        self.running[group] = job
        self._groups[job.id] = group
        self._training[job.number] += 1

    def stop(self, group: int) -> Job | None:
        """Remove the job that a group trains and return it; None if there is none."""
        job = self.running.pop(group, None)
        if job is not None:
            del self._groups[job.id]
            self._training[job.number] -= 1
            if not self._training[job.number]:
                del self._training[job.number]
            self._forget(job)
        return job

    def find_group(self, job_id: str) -> int | None:
        """Return the group that trains a job; None if no group does."""
        return self._groups.get(job_id)

    def list_jobs(self, number: int) -> list[Job]:
        """Return the waiting and running jobs of a trial."""
        return list(self._trials[number].values()) if number in self._trials else []

    def is_trained(self, number: int) -> bool:
        """Return whether a group trains a trial."""
        return number in self._training

    def _forget(self, job: Job) -> None:
        self.counts[job.resources] -= 1
        del self._trials[job.number][job.id]
        if not self._trials[job.number]:
            del self._trials[job.number]
