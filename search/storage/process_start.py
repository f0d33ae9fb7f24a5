"""Start of a process, which identifies it together with its pid."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["read_process_start"]


def read_process_start(pid: int) -> float:
    """Return when a process started.

    It is counted in clock ticks since the boot, because the time of day is different after a change of the clock.
    Without ``/proc``, it is the time of day.

    Raises:
        psutil.NoSuchProcess: If there is no such process.
    """
    if not Path("/proc/self").is_dir():
        return float(psutil.Process(pid).create_time())
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return float(status.rpartition(")")[2].split()[19])  # the name before it can contain parentheses
