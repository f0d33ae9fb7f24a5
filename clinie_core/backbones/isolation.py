"""Isolation of the process that reads files of an untrusted source: no network, and limits on its resources.

The process moves to a network namespace of its own, which has no interface that is up. This needs Linux, and either
root or unprivileged user namespaces, which some systems and containers do not permit. The limits need a POSIX system.
Files that the user can read or write remain accessible.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ResourceLimits", "forbid_network"]

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
"""Flags of Linux' ``unshare``."""
NO_NEW_PRIVILEGES = 38
"""Option of Linux' ``prctl``."""


@dataclass(frozen=True)
class ResourceLimits:
    """Resources that a process may use from now on.

    Args:
        memory_bytes: Address space in addition to that in use.
        cpu_seconds: CPU time of all threads, in addition to that used.
        file_bytes: Size of each file that the process writes.
    """

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int

    def apply(self) -> None:
        """Limit this process; it cannot raise the limits again."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + self.cpu_seconds
        for kind, limit in (
            (resource.RLIMIT_AS, _measure_address_space() + self.memory_bytes),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (lower, lower))


def _measure_address_space() -> int:
    """Return the bytes of this process's address space; 0 on a system that does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text(encoding="ascii").split()[0]) * resource.getpagesize() if status.is_file() else 0


def forbid_network() -> bool:
    """Move this process, which must have one thread, to a network namespace without connections.

    Returns:
        Whether the system permits it. If not, the network remains reachable.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if os.geteuid() == 0 and libc.unshare(NEW_NETWORK) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEW_USER | NEW_NETWORK) != 0:
        return False
    # Without a mapping, the process would see all files as those of an unknown user.
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(content, encoding="ascii")
    return True
