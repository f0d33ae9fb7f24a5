"""Ending what a test has started: a process and every process that it started in turn, by pid."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import psutil


def end_with_children(
    process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, *, patience: float = 20
) -> list[psutil.Process]:
    """Signal a process, wait until it and what it has started are gone, and kill what is not.

    Args:
        process: May have ended already; then nothing is known of what it has started.
        how: What the process itself gets. After SIGKILL its children are killed at once: nobody else tells them.
        patience: Seconds until what is left is killed.

    Returns:
        What had to be killed because it did not end by itself.
    """
    if process.poll() is not None:
        return []
    first = psutil.Process(process.pid)
    family = [first, *first.children(recursive=True)]
    process.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)  # by its parent, which alone learns how it ended
    _, left = psutil.wait_procs(family, timeout=0 if how is signal.SIGKILL else patience)
    for one in left:
        with suppress(psutil.NoSuchProcess):  # it may end between the look and the signal
            one.kill()
    psutil.wait_procs(left)
    process.wait()
    return left
