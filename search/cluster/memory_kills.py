"""Kills of processes because the memory of their container or node was exhausted.

The kernel and Ray end such a process with SIGKILL, which leaves no exception in the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["count_memory_kills", "find_memory_kill"]

KILL_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def count_memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for lack of memory.

    Args:
        root: Folder that contains ``proc`` and ``sys``.

    Returns:
        The count of this process's control group, of the node if the group has none, and 0 if neither is known.
    """
    for file in (*_find_group_files(root), root / "proc/vmstat"):
        try:
            found = KILL_COUNT.search(file.read_text(encoding="ascii", errors="replace"))
        except OSError:  # the file of another version of control groups, or another operating system
            continue
        if found:
            return int(found[1])
    return 0


def _find_group_files(root: Path) -> list[Path]:
    """Return the files that may hold the count of this process's control group, in versions 2 and 1."""
    groups = root / "proc/self/cgroup"
    rows = groups.read_text(encoding="utf-8").splitlines() if groups.is_file() else []
    files = []
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if not controllers:
            files += [root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events", root / "sys/fs/cgroup/memory.events"]
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files += [base / path.lstrip("/") / "memory.oom_control", base / "memory.oom_control"]
    return files


def find_memory_kill(failures: Iterable[BaseException]) -> str | None:
    """Return why Ray's memory monitor has killed a process.

    Args:
        failures: Failures of the processes of a worker group.

    Returns:
        The reason in one line; None if the monitor killed none of them.
    """
    from ray.exceptions import OutOfMemoryError

    for failure in failures:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, OutOfMemoryError):
                return "Ray ended a worker process because the memory of its node was almost exhausted"
            cause = getattr(cause, "health_check_failure", None) or cause.__cause__ or cause.__context__
    return None
