"""Termination of a process and all its descendants, by pid."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import psutil


def end_with_children(
    process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, *, patience: float = 20
) -> list[psutil.Process]:
    """Signal a process, wait until it and its descendants have ended, and kill those that have not.

    Args:
        process: A running process. If it has ended, its descendants are unknown and are not terminated.
        how: Signal to the process. After SIGKILL its descendants are killed immediately.
        patience: Seconds before the remaining processes are killed.

    Returns:
        The processes that had to be killed.
    """
    if process.poll() is not None:
        return []
    first = psutil.Process(process.pid)
    family = [first, *first.children(recursive=True)]
    process.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)  # only a parent receives the exit status
    _, left = psutil.wait_procs(family, timeout=0 if how is signal.SIGKILL else patience)
    for one in left:
        with suppress(psutil.NoSuchProcess):  # it may end before the signal
            one.kill()
    psutil.wait_procs(left)
    process.wait()
    return left
